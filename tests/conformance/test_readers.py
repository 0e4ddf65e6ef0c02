"""What every reader must do, whatever the broker: read nothing from before it was opened; after that all, once.

And every tail: tell the last expirations, again and again.
"""

from collections.abc import AsyncIterator
from typing import Literal

import pytest

from bridge.cloudevents import Encoder
from bridge.commands.readers import Reader, Tail, create, tail
from bridge.errors import NotConnected, Refused
from bridge.expiration import GapRecord
from bridge.settings import Settings, SinkKind
from tests.support.brokers.each import EACH_WAY, ONCE, TRANSACTION
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.redis_rig import RedisRig
from tests.support.brokers.rigs import PATIENCE, JetStreamRig, ids, messages
from tests.support.servers import wait_until

AnyRig = JetStreamRig | KafkaRig | RedisRig
KINDS = {JetStreamRig: "jetstream", KafkaRig: "kafka", RedisRig: "redis"}


@pytest.fixture(params=EACH_WAY)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[AnyRig]:
    """Each broker in turn, with several partitions where it has any."""
    if request.param in {"kafka", TRANSACTION}:
        way = {"kafka_deduplication": "transaction", "namespace": "readers"} if request.param == TRANSACTION else {}
        made: AnyRig = KafkaRig(request.getfixturevalue("kafka_server"), kafka_partitions=3, **way)
    elif request.param == "redis":
        made = RedisRig()
    else:
        assert request.param in {"jetstream", ONCE}, "no rig for this one: add a case"
        made = JetStreamRig(nats_deduplication="subject" if request.param == ONCE else "window")
    async with made:
        yield made


def reader_of(rig: AnyRig) -> Reader:
    kind = KINDS[type(rig)]
    return create(Settings.model_validate({**rig.settings, "sink": kind}), 0, (b"share:0", b"share:1"))


def tail_of(rig: AnyRig, **settings: object) -> Tail:
    kind = KINDS[type(rig)]
    made = tail(Settings.model_validate({**rig.settings, "sink": kind, **settings}), 0)
    assert made is not None
    return made


async def read(reader: Reader, count: int) -> list[bytes]:
    """The keys of what comes: so many, and what more a further look brings."""
    found: list[bytes] = []

    async def are_there() -> bool:
        found.extend([arrival.key for arrival in await reader.read()])
        return len(found) >= count

    await wait_until(are_there, lambda: f"{count} messages, there are {found}", PATIENCE)
    found.extend([arrival.key for arrival in await reader.read()])
    return sorted(found)


async def test_it_reads_what_comes_after_it_was_opened_and_goes_on_where_it_was(rig: AnyRig) -> None:
    batch = messages(9)
    keys = [message.key for message in batch]
    reader = reader_of(rig)
    async with rig.opened() as sink:
        await sink.publish(batch[:3])
        try:
            await reader.open()
            await sink.publish(batch[3:6])
            assert await read(reader, 3) == keys[3:6]
            await reader.close()
            await sink.publish(batch[6:8])
            await reader.open()
            await sink.publish(batch[8:])
            assert await read(reader, 3) == keys[6:]
        finally:
            await reader.close()


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_a_tail_is_the_last_expirations_newest_first(rig: AnyRig, mode: Literal["structured", "binary"]) -> None:
    batch = messages(9, mode=mode)
    gap = GapRecord("3" * 32, "here:6379", 0, 1, "start", None, 0, 0)
    end = tail_of(rig)
    try:
        if isinstance(rig, RedisRig):
            assert await end.last(4) == []  # a key that is not there is an empty stream
        else:
            with pytest.raises(Refused, match="does not exist"):
                await end.last(4)
        async with rig.opened() as sink:
            assert await end.last(4) == []
            await sink.publish([*batch[:6], Encoder("/redis", 0, mode).encode(gap)])
            assert [arrival.id for arrival in await end.last(4)] == ids(batch[5:1:-1])
            await sink.publish(batch[6:])
            assert [arrival.id for arrival in await end.last(100)] == ids(batch[::-1])
    finally:
        await end.close()


async def test_a_tail_can_be_asked_again_when_the_broker_is_back() -> None:
    async with JetStreamRig() as rig:
        end = tail_of(rig)
        async with rig.opened() as sink:
            await sink.publish(messages(1))
        assert len(await end.last(5)) == 1
        rig.server.kill()
        with pytest.raises(NotConnected):
            await end.last(5)
        await end.close()
        rig.server.start()
        try:
            await wait_until(lambda: asked(end), timeout=PATIENCE)
        finally:
            await end.close()


async def asked(end: Tail) -> bool:
    try:
        return len(await end.last(5)) == 1
    except (NotConnected, Refused):
        await end.close()
        return False


async def test_where_the_topic_depends_on_the_key_there_is_no_tail_and_on_standard_output_neither() -> None:
    end = tail(Settings(sink=SinkKind.KAFKA, kafka_topic="gone.{prefix}"), 0)
    assert end is not None
    with pytest.raises(Refused, match="depends on the key"):
        await end.last(1)
    assert tail(Settings(sink=SinkKind.STDOUT), 0) is None


async def test_a_user_that_may_not_read_the_stream_learns_what_to_allow() -> None:
    user = '{ user: ann, password: hunter2, permissions: { publish: { deny: "$JS.API.STREAM.MSG.GET.>" } } }'
    async with JetStreamRig(f"authorization {{ users: [{user}] }}", nats_user="ann", nats_password="hunter2") as rig:
        end = tail_of(rig)
        async with rig.opened() as sink:
            await sink.publish(messages(1))
        try:
            with pytest.raises(Refused, match=r"allow it to publish to .*\$JS\.API\.STREAM\.MSG\.GET\.EXPIRY"):
                await end.last(1)
        finally:
            await end.close()
