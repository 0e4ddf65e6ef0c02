"""A scene whose ledger has several shards, and who holds them."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.redis.protocol.own_keys import Names
from tests.support.deployments.jetstream import Deployment
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

SHARDS = 4
SETTINGS = {"BRIDGE_SHARDS": str(SHARDS), "BRIDGE_SCAN_INTERVAL": "0"}
ALL = [Names("expiry-bridge", 0, shard) for shard in range(SHARDS)]


@asynccontextmanager
async def sharded(kind: type[RedisServer]) -> AsyncIterator[Deployment]:
    async with Deployment.of(kind, settings=SETTINGS) as deployment:
        yield deployment


async def holders(deployment: Deployment) -> Counter[str]:
    """By process id: how many leases each bridge holds."""
    found: Counter[str] = Counter()
    for names in ALL:
        holder = await deployment.redis.hget(names.lease, "holder")
        if holder:
            found[str(holder).split("-")[-2]] += 1
    return found


async def shared(deployment: Deployment, *shares: tuple[Bridge, int]) -> None:
    """Return when each bridge holds so many leases, nobody else holds any, and all of these bridges are ready."""
    wanted = {str(bridge.pid): count for bridge, count in shares if count}

    async def is_so() -> bool:
        return await holders(deployment) == wanted

    await wait_until(is_so, lambda: "\n".join(bridge.log() for bridge, _ in shares), PATIENCE)
    for bridge, count in shares:
        if count:
            await bridge.ready(PATIENCE)
