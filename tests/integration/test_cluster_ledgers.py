"""What becomes of a ledger whose slot moves to another primary of a cluster, and of the primary that had it."""

from contextlib import aclosing
from dataclasses import replace

import pytest

from bridge.redis.connection import Endpoint
from bridge.redis.ledger import Lease, Ledger
from bridge.redis.names import Names
from bridge.settings import Settings
from tests.cluster_nodes import slot_of
from tests.redis_cluster import RedisCluster
from tests.servers import RedisServer

pytestmark = pytest.mark.cluster


async def test_a_ledger_is_adopted_whichever_of_its_keys_have_come(redis_kind: type[RedisServer]) -> None:
    async with RedisCluster.of(redis_kind, replicas=0) as cluster:
        first, second, _ = await cluster.primaries()
        own, stray = [Names("expiry-bridge", 0, await cluster.number(node)) for node in (first, second)]
        await cluster.ask(second, "ZADD", stray.deadlines.decode(), 1, "share:1")
        await cluster.ask(second, "HSET", stray.lease.decode(), "until", 0)
        slot = slot_of(stray.lease)
        await cluster.open_slot(slot, first)
        await cluster.move_keys(slot, first, 1)

        settings = Settings.model_validate({"redis_url": cluster.url, "sink": "stdout"})
        endpoint = replace(Endpoint.of(settings), host="127.0.0.1", port=first.port)
        async with aclosing(endpoint.client(2)) as client:
            ledger = Ledger(client, endpoint, own)
            lease = await ledger.acquire("a bridge")
            assert isinstance(lease, Lease)
            assert await ledger.adopt(lease.fence, 1, stray.shard) == 0
            await cluster.move_keys(slot, first)
            assert await ledger.adopt(lease.fence, 2, stray.shard) == 0
            assert await ledger.moved(0, 10) == [(b"share:1", 1)]
