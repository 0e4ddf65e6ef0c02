"""Kafka with `BRIDGE_KAFKA_DEDUPLICATION=transaction`: each id is committed once, whoever sends it again."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from bridge.errors import NotConnected
from tests.support.brokers.caller import CLAIMED_MS, Caller, Rejected
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_access import SECRET, as_ann
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import batches, deliver, ids, messages, refused, works
from tests.support.servers import wait_until

_numbers = count()


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


async def test_records_have_the_time_of_their_claims(rig: KafkaRig) -> None:
    await works(rig.sink())
    assert [record.timestamp for record in await rig.records()] == [CLAIMED_MS]


async def test_two_that_fence_each_other_have_each_message_once(rig: KafkaRig) -> None:
    wanted = batches(6, 50)
    async with rig.opened() as one, rig.opened() as other:
        await deliver(one, wanted[0])
        await deliver(other, wanted[1])  # this fences the first one
        with pytest.raises(NotConnected, match="another bridge has taken over"):
            await one.publish(wanted[0])
        await asyncio.gather(
            *(deliver(one, batch) for batch in wanted[1:]),
            *(deliver(other, batch) for batch in wanted if batch is not wanted[1]),  # it knows that that is acked
        )
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


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
            async with rig.opened(**settings, namespace=f"another-{namespace}") as sink:
                with pytest.raises(NotConnected, match="may not use the bridge's transactional ids") as caught:
                    await sink.publish(messages(1))
                assert SECRET not in str(caught.value)
            async with rig.opened(**settings) as sink:
                await deliver(sink, messages(2))
        finally:
            await rig.forbid("ann")
        await wait_until(lambda: all_stored(rig, 2))


async def all_stored(rig: KafkaRig, number: int) -> bool:
    return len(await rig.stored()) == number
