"""Redis Streams behind sentinels, and on a cluster."""

import asyncio
from typing import cast

import pytest
from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.errors import BridgeError
from bridge.limits import WireLimits
from bridge.settings import Settings
from bridge.sinks.redis import RedisSink
from tests.support.brokers.caller import Caller
from tests.support.brokers.rigs import Observed, batches, deliver, ids, messages
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.nodes import slot_of
from tests.support.redis.sentinel import Group
from tests.support.servers import PATIENCE, RedisServer, ValkeyServer, wait_until

pytestmark = pytest.mark.cluster

KINDS = pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])


def sink_of(url: str, **settings: str) -> Caller:
    made = Settings.model_validate({"sink_redis_url": url, **settings})
    return Caller(RedisSink(made, 0, SystemClock(), WireLimits(primary_check=0.2), Observed()))


async def opened(sink: Caller) -> bool:
    try:
        await sink.open()
    except BridgeError:
        return False
    return True


@KINDS
async def test_through_a_failover_of_sentinels_each_message_is_appended_once(kind: type[RedisServer]) -> None:
    wanted = batches(10, 100)
    async with Group.of(kind) as group:
        sink = sink_of(group.url)
        try:
            await sink.open()
            await deliver(sink, wanted[0])
            former = await group.primary()
            assert former is not None
            async with Redis(port=former.port) as client:
                await client.wait(1, 10_000)  # what an ack of a failover's old primary is worth is not this test's
            former.kill()
            await wait_until(lambda: not sink.connected)
            await group.replaced(former)
            await wait_until(lambda: opened(sink), timeout=PATIENCE)
            await asyncio.gather(*(deliver(sink, batch) for batch in wanted))
            now = await group.primary()
        finally:
            await sink.close()
        assert now is not None
        async with Redis(port=now.port) as client:
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange("expired"))
        stored = [fields[b"ce_id"].decode() for _, fields in entries]
    assert sorted(stored) == sorted(id_ for batch in wanted for id_ in ids(batch))


@KINDS
async def test_on_a_cluster_each_stream_and_its_memory_are_on_one_node_also_when_the_slot_moves(
    kind: type[RedisServer],
) -> None:
    prefixes = [b"share", b"cart", b"session", b"a{b}", b"x" * 500]
    rounds = [
        messages(0, keys=[b"%b:%d" % (prefix, n) for prefix in prefixes for n in range(9)], first=turn * 100)
        for turn in range(3)
    ]
    async with RedisCluster.of(kind, replicas=0) as cluster:
        url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
        sink = sink_of(url, sink_redis_stream="gone:{prefix}")
        try:
            await sink.open()
            await deliver(sink, rounds[0])
            nodes = await cluster.primaries()
            owner = await cluster.owner_of_slot(slot := slot_of("gone:share"))
            other = next(node for node in nodes if node is not owner)
            await cluster.open_slot(slot, other)
            publishing = asyncio.create_task(deliver(sink, rounds[1]))
            await cluster.move_keys(slot, other)
            await cluster.close_slot(slot, other)
            await publishing
            for batch in rounds:
                await deliver(sink, batch)
        finally:
            await sink.close()
        stored = list[str]()
        async for stream in cluster.client.scan_iter("gone:*", _type="stream"):
            entries = cast("list[tuple[str, dict[str, str]]]", await cluster.client.xrange(stream))
            stored += [fields["ce_id"] for _, fields in entries]
    assert sorted(stored) == sorted(id_ for batch in rounds for id_ in ids(batch))
