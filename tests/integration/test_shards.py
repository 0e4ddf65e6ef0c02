"""Several bridges, which share the shards of one ledger: evenly, one after the other, and none of them for good."""

import pytest

from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import PREFIX, keys
from tests.support.deployments.sharded import ALL, SETTINGS, SHARDS, holders, sharded, shared
from tests.support.servers import PATIENCE, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

LIFE_MS = 2_500
"""How long keys live: long enough to be recorded on a busy machine, and for shards to change hands meanwhile."""
MANY = 200


async def set_and_recorded(deployment: Deployment, names: list[str]) -> None:
    await deployment.set(names, LIFE_MS, known=False)

    async def are_recorded() -> bool:
        sizes = [await deployment.redis.zcard(shard.deadlines) for shard in ALL]
        assert all(0 < size < len(names) for size in sizes if sum(sizes) == len(names)), "each has some"
        return sum(sizes) >= len(names)

    await wait_until(are_recorded, "all shards' ledgers", PATIENCE)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_bridges_share_the_shards_and_take_over_what_one_leaves(redis_kind: type[RedisServer], end: str) -> None:
    async with sharded(redis_kind) as deployment:
        first = await deployment.ready_bridge()
        await shared(deployment, (first, 4))
        second = await deployment.start_bridge()
        third = await deployment.start_bridge()
        await wait_until(lambda: deployment_is_even(deployment), "4 shards among 3", PATIENCE)
        assert await third.stop(PATIENCE) == 0
        await shared(deployment, (first, 2), (second, 2))
        before = await reconciled(deployment)
        names = keys(MANY)
        await set_and_recorded(deployment, names)
        if end == "SIGTERM":
            assert await first.stop(PATIENCE) == 0
        else:
            first.kill()
        await shared(deployment, (second, 4))
        stored = await deployment.delivered()
        assert {message.key for message in stored} == set(names)
        assert await deployment.redis.get(ALL[0].shards) == str(SHARDS)
        status, metrics = await second.get("/metrics")
        assert status == 200
        assert [f'bridge_lease_held{{shard="{shard}"}} 1.0' in metrics for shard in range(SHARDS)] == [True] * SHARDS
        after = await reconciled(deployment)
        assert after == before, f"where a shard changes hands, no gap opens: {await deployment.gaps()}"


async def reconciled(deployment: Deployment) -> int:
    """How many gaps there were, once none is open, and the broker has all records."""

    async def are_closed() -> bool:
        closed = [await deployment.redis.hget(shard.lease, "open") == "0" for shard in ALL]
        return all(closed) and not any([await deployment.redis.xlen(shard.outbox) for shard in ALL])

    await wait_until(are_closed, "all gaps to be closed", PATIENCE)
    return len(await deployment.gaps())


async def deployment_is_even(deployment: Deployment) -> bool:
    return sorted((await holders(deployment)).values()) == [1, 1, 2]


async def test_bridges_that_count_other_shards_are_refused(redis_kind: type[RedisServer]) -> None:
    async with sharded(redis_kind) as deployment:
        await deployment.ready_bridge()
        deployment.settings = {**SETTINGS, "BRIDGE_SHARDS": "2"}
        other = await deployment.start_bridge()
        assert await other.exited(PATIENCE) == 1
        assert "has 4 shards, and BRIDGE_SHARDS is 2: set BRIDGE_SHARDS to 4" in other.log()


async def test_a_ledger_from_before_there_were_shards_has_one(redis_kind: type[RedisServer]) -> None:
    async with sharded(redis_kind) as deployment:
        await deployment.redis.hset(ALL[0].lease, "fence", "1")
        bridge = await deployment.start_bridge()
        assert await bridge.exited(PATIENCE) == 1
        assert "has 1 shard, and" in bridge.log()


async def test_a_dead_member_counts_no_more_after_a_moment_and_a_clock_set_back_does_no_harm(
    redis_kind: type[RedisServer],
) -> None:
    async with sharded(redis_kind) as deployment:
        members = ALL[0].members
        await deployment.redis.hset(members, mapping={"dead": "1", "from the future": str(2**50), "broken": "x"})
        bridge = await deployment.ready_bridge()
        await shared(deployment, (bridge, 4))
        assert len(await deployment.redis.hkeys(members)) == 1
        assert PREFIX not in bridge.log()
        assert await bridge.stop(PATIENCE) == 0
        assert await deployment.redis.exists(members) == 0
