"""Kafka with `BRIDGE_KAFKA_DEDUPLICATION=transaction`: each id is committed once, whoever sends it again."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from itertools import count

import pytest

from bridge.contracts import Batch, Origin, Run
from bridge.errors import NotConnected, Refused
from bridge.sinks.kafka.topics import Topics
from tests.support.brokers.caller import CLAIMED_MS, Caller, Rejected, TakenLater, Tally
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_access import SECRET, as_ann
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import batches, deliver, ids, messages, refused, works
from tests.support.servers import wait_until

_numbers = count()
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
async def unheard() -> AsyncIterator[None]:
    """Fails where asyncio has something to say at the end of a test: an operator would read that."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["message"]))
    yield
    gc.collect()
    assert said == []


@pytest.fixture
async def rig(kafka_server: KafkaServer) -> AsyncIterator[KafkaRig]:
    """Of a namespace of its own: transactional ids are the server's, not the topic's."""
    async with KafkaRig(
        kafka_server, kafka_deduplication="transaction", kafka_partitions=3, namespace=f"once-{next(_numbers)}"
    ) as made:
        yield made


async def test_a_repeat_is_acked_and_not_stored_whoever_sends_it(rig: KafkaRig) -> None:
    wanted = batches(4, 100)
    async with rig.opened() as sink:
        await deliver(sink, wanted[0])
        await deliver(sink, wanted[1])
    async with rig.opened() as sink:  # after a restart, with what was not settled
        await deliver(sink, [*wanted[1][50:], *wanted[2][:50]])
        await deliver(sink, wanted[2][50:])
    async with rig.opened() as sink:
        for batch in wanted:
            await deliver(sink, batch)
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_what_comes_once_more_on_one_session_is_stored_once(rig: KafkaRig) -> None:
    wanted = batches(3, 50)
    sent = [message.id for batch in wanted for message in batch]
    places = {id_: (0, index) for index, id_ in enumerate(sent)}
    async with rig.opened() as made:
        sink = Caller(made.sink, places)
        await sink.open()
        try:
            for batch in [*wanted[:2], *wanted]:  # in between, Redis has lost what was settled
                await sink.publish(batch)
            assert sink.ends == []
        finally:
            await sink.close()
    assert sorted(await rig.stored()) == sorted(sent)


async def test_records_have_the_time_of_their_claims(rig: KafkaRig) -> None:
    await works(rig.sink())
    assert [record.timestamp for record in await rig.records()] == [CLAIMED_MS]


async def test_two_that_fence_each_other_have_each_message_once(rig: KafkaRig) -> None:
    wanted = batches(6, 50)
    async with rig.opened() as one, rig.opened() as other:
        await deliver(one, wanted[0])
        await deliver(other, wanted[1])  # this fences the first one
        await asyncio.gather(
            *(deliver(one, batch) for batch in wanted),
            *(deliver(other, batch) for batch in wanted if batch is not wanted[1]),  # it knows that that is acked
        )
        assert one.ends == other.ends == []
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_bridges_of_different_servers_with_one_namespace_are_warned_of(rig: KafkaRig) -> None:
    wanted = batches(8, 5)
    async with rig.opened() as one, rig.opened() as other:
        for turn in range(4):  # each fences the other one, again and again, and has what the other one never sends
            await one.publish(wanted[2 * turn])
            await other.publish(wanted[2 * turn + 1])
    assert any("different BRIDGE_NAMESPACE" in warning for warning in rig.observed.warnings)
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_a_shard_that_was_lost_and_is_back_costs_the_other_shards_nothing(rig: KafkaRig) -> None:
    lost, kept = batches(3, 50), [messages(50, first=1000 + 50 * number) for number in range(3)]
    shards = [(0, batch) for batch in lost] + [(1, batch) for batch in kept]
    places = {message.id: (shard, index) for shard, batch in shards for index, message in enumerate(batch)}
    ours, theirs = Caller(rig.sink().sink, places), Caller(rig.sink().sink, places)
    try:
        await ours.open()
        await theirs.open()
        await asyncio.gather(deliver(ours, lost[0]), deliver(ours, kept[0]))
        await deliver(theirs, lost[1])
        await asyncio.gather(
            *(ours.publish(batch) for batch in (lost[1], lost[2])),  # one of them was on its way, one is new
            *(ours.publish(batch) for batch in kept[1:]),
        )
        await theirs.publish(lost[2])
        assert ours.connected
        assert theirs.connected
        assert rig.observed.warnings == []  # that is how takeovers are
    finally:
        await ours.close()
        await theirs.close()
    assert sorted(await rig.stored()) == sorted(id_ for _, batch in shards for id_ in ids(batch))


@pytest.mark.parametrize("holders", ["one bridge", "two bridges"])
async def test_what_another_ledger_adopted_is_stored_once_whoever_still_sends_it(rig: KafkaRig, holders: str) -> None:
    """In a cluster, entries move to another ledger while they are on their way: then they are there twice."""
    wanted = batches(4, 20)
    places = {m.id: (number, index) for number, batch in enumerate(wanted) for index, m in enumerate(batch)}

    def here(number: int) -> Batch:
        return Batch(wanted[number], [Run(1, b"1-%d" % number, 0, 20, claimed_ms=CLAIMED_MS)])

    def adopted(number: int) -> Batch:
        origin = Origin.of(1, b"1-%d" % number)
        return Batch(wanted[number], [Run(2, b"9-%d" % number, 0, 20, origin, claimed_ms=CLAIMED_MS)])

    former = await rig.sink().sink.connect()
    other = former if holders == "one bridge" else await rig.sink().sink.connect()
    try:
        for session, batch in [
            (former, here(0)),
            (other, adopted(1)),
            (former, here(1)),  # it was on its way
            (former, here(2)),
            (other, adopted(2)),
            (other, adopted(0)),
            (former, here(3)),
            (other, adopted(3)),
        ]:
            tally = Tally()
            await session.publish(batch, tally)
            assert len(tally.acks) == 20
    finally:
        await former.close()
        await other.close()
    stored = [id_ for id_ in await rig.stored() if id_ in places]
    assert sorted(stored) == sorted(places)


async def test_an_open_transaction_of_one_that_is_gone_is_fenced_and_hides_nothing(rig: KafkaRig) -> None:
    wanted = batches(2, 200)
    gone = rig.sink()
    await gone.open()
    await deliver(gone, wanted[0])
    publishing = asyncio.create_task(gone.publish(wanted[1]))
    await asyncio.sleep(0.01)  # any moment will do
    publishing.cancel()
    await asyncio.wait([publishing])
    async with rig.opened() as sink:
        for batch in wanted:
            await deliver(sink, batch)
        stored = sorted(await rig.stored())
    await gone.close()
    assert stored == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_shards_commit_side_by_side_and_know_each_others_end(rig: KafkaRig) -> None:
    wanted = batches(4, 100)

    def of_shard() -> Caller:
        return Caller(rig.sink().sink)  # a shard for each batch

    sinks = [of_shard(), of_shard()]
    try:
        for sink in sinks:
            await sink.open()
            await asyncio.gather(*(deliver(sink, batch) for batch in wanted))
    finally:
        for sink in sinks:
            await sink.close()
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_what_is_too_large_is_rejected_and_all_else_is_stored(rig: KafkaRig) -> None:
    await rig.create(max_message_bytes="2000")
    large = messages(0, keys=[b"share:" + b"x" * 3000], first=500)
    small = messages(20)
    async with rig.opened() as sink:
        with pytest.raises(Rejected, match=r"2000 \(max.message.bytes\)"):
            await deliver(sink, [*small[:10], *large, *small[10:]])
    assert sorted(await rig.stored()) == sorted(ids(small))


async def test_a_limit_that_was_lowered_meanwhile_is_learned(rig: KafkaRig) -> None:
    await rig.create()
    large = messages(0, keys=[b"share:" + b"x" * 3000], first=500)
    async with rig.opened() as sink:
        await works(rig.sink())
        await rig.configure(max_message_bytes="2000")
        with pytest.raises(Rejected):
            await deliver(sink, [*messages(20, first=1), *large])
    assert sorted(await rig.stored()) == sorted(ids(messages(21)))


@pytest.mark.parametrize(
    ("configs", "reason"),
    [
        ({"message_timestamp_type": "LogAppendTime"}, "LogAppendTime: records are found by the time of their claims"),
        ({"cleanup_policy": "compact"}, "it is compacted, and forgets what it had"),
    ],
)
async def test_a_topic_whose_end_cannot_be_known_is_refused(
    rig: KafkaRig, configs: dict[str, str], reason: str
) -> None:
    await rig.create(**configs)  # type: ignore[arg-type]
    await refused(rig.sink(), reason)


@pytest.mark.parametrize("limit", ["known", "not known"])
async def test_claims_that_are_too_old_for_the_topic_are_sent_with_the_time_of_sending(
    rig: KafkaRig, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    await rig.create(message_timestamp_before_max_ms=str(10 * MINUTE_MS))
    if limit == "not known":  # as where the user may not read the topic's configuration
        monkeypatch.setattr(Topics, "oldest_ms", lambda _self, _topic: None)
    wanted = batches(4, 20)
    began_ms = int(time.time() * 1000)
    claims = [began_ms - minutes * MINUTE_MS for minutes in (600, 60, 1, 0)]
    for _ in range(2):  # a repeat is found, whatever time it was given
        async with rig.opened() as sink:
            for batch, claimed_ms in zip(wanted, claims, strict=True):
                sink.claimed_ms = claimed_ms
                await sink.publish(batch)
            assert sink.connected
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))
    stamps = {record.value: record.timestamp for record in await rig.records()}
    for batch, claimed_ms in zip(wanted, claims, strict=True):
        for message in batch:
            assert stamps[message.body] == claimed_ms or stamps[message.body] >= began_ms
    assert all(stamps[message.body] == claims[3] for message in wanted[3])


async def test_a_claim_from_far_ahead_becomes_a_dead_letter_and_holds_up_nothing(rig: KafkaRig) -> None:
    await rig.create()
    early, fine = messages(3, first=100), messages(20)
    async with rig.opened() as sink:
        sink.claimed_ms = int(time.time() * 1000) + 24 * 60 * MINUTE_MS
        with pytest.raises(Rejected, match=r"ahead of this machine's clock.*message.timestamp limits") as caught:
            await sink.publish(early)
        assert sorted(caught.value.reasons) == [0, 1, 2]
        sink.claimed_ms = CLAIMED_MS
        await sink.publish(fine)
        assert sink.connected
    assert sorted(await rig.stored()) == sorted(ids(fine))


async def test_a_claim_from_just_ahead_waits_until_the_topic_takes_it(rig: KafkaRig) -> None:
    await rig.create(message_timestamp_after_max_ms="1000")
    batch = messages(20)
    async with rig.opened() as sink:
        sink.claimed_ms = int(time.time() * 1000) + 4000
        with pytest.raises(TakenLater, match="does not take its time: set the clocks"):
            await sink.publish(batch)
        await deliver(sink, batch)
        assert sink.connected
        claimed_ms = sink.claimed_ms
    records = await rig.records()
    assert [record.key for record in records] == [message.key for message in batch]
    assert {record.timestamp for record in records} == {claimed_ms}


async def test_a_user_needs_the_transactional_ids_and_the_right_to_read(secure_kafka: KafkaServer) -> None:
    namespace = f"once-{next(_numbers)}"
    async with KafkaRig(secure_kafka, kafka_deduplication="transaction", namespace=namespace) as rig:
        await rig.create()
        await rig.allow("ann", "write")
        settings = as_ann(rig.server, "PLAIN")
        try:
            await works(rig.sink())  # somebody else's
            await rig.allow_transactions("ann", "write", namespace)
            await rig.allow_transactions("ann", "describe", namespace)
            async with rig.opened(**settings) as sink:
                with pytest.raises(NotConnected, match="may not read the topic"):
                    await sink.publish(messages(1))
            await rig.allow("ann", "read")
            another = f"another-{namespace}"
            async with rig.opened(**settings, namespace=another) as sink:
                with pytest.raises(NotConnected, match="may not use the bridge's transactional ids") as caught:
                    await sink.publish(messages(1))
                assert SECRET not in str(caught.value)
                with pytest.raises(Refused, match="may not use the bridge's transactional ids"):
                    await sink.open()  # from now on it is known, and no session is of any use
                await rig.allow_transactions("ann", "write", another)
                await rig.allow_transactions("ann", "describe", another)
                await works(sink)
            async with rig.opened(**settings) as sink:
                await deliver(sink, messages(2))
        finally:
            await rig.forbid("ann")
        await wait_until(lambda: all_stored(rig, 2))


async def all_stored(rig: KafkaRig, number: int) -> bool:
    return len(await rig.stored()) == number


async def test_a_topic_of_several_that_cannot_be_made_is_refused_alone(rig: KafkaRig) -> None:
    async with rig.opened(kafka_topic=f"{rig.topic}-{{prefix}}", kafka_replication=99) as sink:
        tally = Tally()
        await sink.publish_with(tally, messages(1))
        assert ("INVALID_REPLICATION_FACTOR" in tally.refusals[0], tally.alone) == (True, {0})
