"""JetStream with `BRIDGE_NATS_DEDUPLICATION=subject`: each id is stored once, however late it comes again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, SubjectTransform

from bridge.cloudevents import Encoder
from bridge.contracts import Message
from bridge.expiration import GapRecord
from bridge.limits import JetStreamLimits
from tests.support.brokers.caller import TakenLater
from tests.support.brokers.nats_cluster import NatsCluster
from tests.support.brokers.rigs import JetStreamRig, batches, deliver, ids, messages, refused, works
from tests.support.proxy import TO_CLIENT, Action, Protocol, Proxy
from tests.support.servers import start

SHORTEST_WINDOW = 0.1
FITTING: dict[str, Any] = {
    "subjects": ["expired.>"],
    "max_msgs_per_subject": 1,
    "discard": DiscardPolicy.NEW,
    "discard_new_per_subject": True,
}


@pytest.fixture
async def rig() -> AsyncIterator[JetStreamRig]:
    async with JetStreamRig(nats_deduplication="subject") as made:
        yield made


async def add(rig: JetStreamRig, **config: Any) -> None:  # noqa: ANN401 - of any field's type
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", **config)


async def config_of(rig: JetStreamRig) -> StreamConfig:
    async with rig.client() as client:
        return (await client.jetstream().stream_info("EXPIRY")).config


def others(batch: list[Message]) -> list[Message]:
    """Other messages of the same keys."""
    return [message._replace(id=message.id[::-1]) for message in batch]


async def test_the_id_is_the_last_token_of_the_subject(rig: JetStreamRig) -> None:
    [share] = messages(1)
    gap = Encoder("/redis", 0, "structured").encode(GapRecord("3" * 32, "here:6379", 0, 1, "start", None, 0, 0))
    trial = Encoder("/redis", 0, "structured").trial("5" * 32, 1)
    found = await rig.published([share, gap, trial])
    subjects = [f"expired.0.share.{share.id}", f"expired.0._gap.{gap.id}", f"expired.0._check.{trial.id}"]
    assert [message.channel for message in found] == subjects


async def test_a_missing_stream_is_created_as_documented(rig: JetStreamRig) -> None:
    await works(rig.sink())
    config = await config_of(rig)
    assert config.subjects == ["expired.*.*.*"]
    assert (config.storage, config.retention) == (StorageType.FILE, RetentionPolicy.LIMITS)
    assert (config.max_msgs_per_subject, config.discard, config.discard_new_per_subject) == (1, DiscardPolicy.NEW, True)
    assert rig.observed.warnings == []


async def test_a_repeat_is_acked_and_not_stored_however_late_it_comes(rig: JetStreamRig) -> None:
    await add(rig, **FITTING, duplicate_window=SHORTEST_WINDOW)
    batch = messages(500)
    async with rig.opened() as sink:
        await sink.publish(batch)
        await asyncio.sleep(2 * SHORTEST_WINDOW)  # what is waited for is that time is over
        await sink.publish([*batch[:250], *others(batch)])
    async with rig.opened() as sink:
        await sink.publish(batch)
    assert sorted(await rig.stored()) == sorted([*ids(batch), *ids(others(batch))])
    assert rig.observed.warnings == []


async def test_the_ack_of_a_repeat_survives_a_kill_of_the_server(rig: JetStreamRig) -> None:
    wanted = batches(20, 500)
    async with rig.opened(JetStreamLimits(ack=0.5)) as sink:
        for round_ in range(3):
            delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted]
            await asyncio.sleep(0.05 * round_)  # another moment each time
            rig.server.kill()
            rig.server.start()
            await asyncio.gather(*delivering)
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_a_stream_that_is_full_has_not_acked(rig: JetStreamRig) -> None:
    """Its refusal has the code of a repeat's."""
    await add(rig, **FITTING, max_msgs=3)
    batch = messages(5)
    async with rig.opened() as sink:
        await sink.publish(batch[:3])
        with pytest.raises(TakenLater, match="maximum messages exceeded") as caught:
            await sink.publish(batch)
        assert caught.value.acked == [0, 1, 2]
        async with rig.client() as client:
            await client.jetstream().purge_stream("EXPIRY", subject=f"expired.0.share.{batch[0].id}")
            await client.jetstream().purge_stream("EXPIRY", subject=f"expired.0.share.{batch[1].id}")
        await sink.publish(batch[2:])
    assert sorted(await rig.stored()) == sorted(ids(batch[2:]))


async def test_in_the_default_mode_a_full_subject_is_no_ack(rig: JetStreamRig) -> None:
    await add(rig, **FITTING)
    async with rig.opened(nats_deduplication="window") as sink:
        await sink.publish(messages(1))
        with pytest.raises(TakenLater, match="maximum messages per subject exceeded"):
            await sink.publish(messages(1, first=1))


async def test_a_refusal_is_no_ack_while_the_message_cannot_be_read() -> None:
    """A replicated stream refuses the second copy while the first is under way; that one may yet be dropped."""
    async with JetStreamRig(nats_deduplication="subject") as rig, Proxy(rig.server.port, Protocol.NATS) as proxy:
        [message] = messages(1)
        await add(rig, **FITTING, duplicate_window=SHORTEST_WINDOW)
        await rig.published([message])
        limits = JetStreamLimits(api=0.5)
        async with rig.opened(limits, nats_url=f"nats://127.0.0.1:{proxy.port}") as sink:
            await asyncio.sleep(2 * SHORTEST_WINDOW)  # what is waited for is that time is over
            answer = proxy.break_on(TO_CLIENT, b"stream_msg_get_response", Action.DROP)
            with pytest.raises(TakenLater, match="does not say whether it has the first"):
                await sink.publish([message])
            await answer.reached()
            await sink.publish([message])
        assert await rig.stored() == [message.id]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"subjects": ["expired.>"]}, "max_msgs_per_subject is not 1; it does not refuse what is new"),
        ({**FITTING, "discard_new_per_subject": False}, "it does not refuse what is new"),
        ({**FITTING, "max_msgs_per_subject": 2}, "max_msgs_per_subject is not 1"),
        ({**FITTING, "retention": RetentionPolicy.WORK_QUEUE}, "it is a work queue"),
        ({**FITTING, "retention": RetentionPolicy.INTEREST}, "it has interest retention"),
        ({**FITTING, "subject_transform": SubjectTransform(src="expired.>", dest="x.>")}, "under other subjects"),
    ],
)
async def test_a_stream_that_could_store_a_message_twice_is_refused_with_a_way_to_move(
    rig: JetStreamRig, config: dict[str, Any], reason: str
) -> None:
    await add(rig, **config)
    await refused(rig.sink(), f"{reason}.*name a new stream in BRIDGE_NATS_STREAM")


async def test_beside_a_stream_of_the_default_mode_another_one_is_created(rig: JetStreamRig) -> None:
    """As the way to move says: their subjects do not overlap."""
    await works(rig.sink(nats_deduplication="window"))
    await works(rig.sink(nats_stream="EXPIRY-ONCE"))
    assert await rig.stored("EXPIRY") == await rig.stored("EXPIRY-ONCE") == ids(messages(1))


@pytest.mark.cluster
async def test_repeats_in_a_cluster_are_acked_though_its_leader_is_killed() -> None:
    wanted = batches(10, 200)
    async with NatsCluster.of() as cluster:
        rig = JetStreamRig(nats_deduplication="subject", nats_url=cluster.url)
        async with rig.opened(JetStreamLimits(ack=0.5)) as sink:
            await deliver(sink, wanted[0])
            leader = await cluster.leader()
            assert leader is not None
            delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted]
            await asyncio.sleep(0.02)  # any moment will do
            leader.kill()
            await asyncio.gather(*delivering)
            await start(leader)
            await cluster.in_step()
            await asyncio.gather(*(deliver(sink, batch) for batch in wanted))
        info = await cluster.info()
    assert info is not None
    assert info.state.messages == sum(map(len, wanted))
