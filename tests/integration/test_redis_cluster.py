"""A Redis Cluster: whoever dies, each key that expires is stored, and once. What moves: `test_cluster_slots.py`."""

import asyncio
from collections import Counter

import pytest

from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.scene import keys
from tests.support.servers import PATIENCE, RedisServer, wait_until

pytestmark = pytest.mark.cluster


async def leases(deployment: ClusterDeployment) -> Counter[str]:
    """How many ledgers each bridge works on."""
    cluster = deployment.cluster
    found = Counter[str]()
    for node in await cluster.primaries():
        lease = f"{{expiry-bridge:0:{await cluster.number(node)}}}:lease"
        found[await cluster.ask(node, "HGET", lease, "holder")] += 1
    return found


async def shared(deployment: ClusterDeployment, *shares: int) -> None:
    """Return when the primaries are shared so."""

    async def are_shared() -> bool:
        return sorted((await leases(deployment)).values()) == sorted(shares)

    await wait_until(are_shared, lambda: f"{shares}\n{deployment.bridges[-1].log()}", PATIENCE)


async def expiring(deployment: ClusterDeployment, number: int, span_ms: int, start: int = 0) -> list[str]:
    """Set so many keys that expire one after the other; return when ledgers and replicas know of all."""
    groups = 20
    names = keys(number, start)
    await deployment.record(names)
    for group in range(groups):
        ttl_ms = 1000 + span_ms * group // groups
        await deployment.set(names[group::groups], ttl_ms)
    await deployment.replicated()
    return names


async def test_ten_thousand_keys_expire_through_a_failover_and_a_migration_with_two_bridges(
    redis_kind: type[RedisServer],
) -> None:
    async with ClusterDeployment.with_cluster(redis_kind) as deployment:
        cluster = deployment.cluster
        first, second, third = await cluster.primaries()
        (heir,) = await cluster.replicas(third)
        bridges = [await deployment.ready_bridge() for _ in range(2)]
        await shared(deployment, 2, 1)

        await expiring(deployment, 10_000, 8000)
        begin = await cluster.ledger_slot(first) + 1
        moving = asyncio.create_task(cluster.move_slots(range(begin, begin + 100), second))
        await wait_until(lambda: cluster.carried, "the migration", PATIENCE)
        third.kill()
        await cluster.promoted(heir)
        await moving
        await deployment.delivered()
        await deployment.tidied()
        gaps = await deployment.gaps()
        assert {gap["node"] for gap in gaps} == {f"127.0.0.1:{node.port}" for node in (first, second, third, heir)}
        assert sum(gap["recovered"] + gap["ambiguous"] for gap in gaps) > 0, "nothing expired in the failover"

        # Bridges come and go.
        await deployment.record(keys(300, 10_000))
        await deployment.set(keys(300, 10_000), 3000)
        bridges[0].kill()
        await deployment.expire_lease()
        await shared(deployment, 3)
        await deployment.ready_bridge()
        await shared(deployment, 2, 1)
        await deployment.record(keys(300, 11_000))
        await deployment.set(keys(300, 11_000), 3000)
        assert await bridges[1].stop() == 0
        await shared(deployment, 3)
        await deployment.delivered()


async def test_a_primary_that_is_cut_off_or_frozen_holds_up_nobody_and_nothing_of_it_is_lost(
    redis_kind: type[RedisServer],
) -> None:
    partly = {"cluster-require-full-coverage": "no"}  # a primary that is down is to stop nothing but its own slots
    async with ClusterDeployment.with_cluster(redis_kind, redis=partly, parting=True) as deployment:
        cluster = deployment.cluster
        await deployment.ready_bridge()
        first, *_ = await cluster.primaries()
        (heir,) = await cluster.replicas(first)

        await expiring(deployment, 600, 4000)
        owner = await cluster.owners()
        await cluster.cut_off(first)
        await cluster.promoted(heir)
        await deployment.delivered()
        await deployment.set([key for key in keys(100, 5000) if owner(key) is first], 500, known=False)
        await deployment.delivered()
        await cluster.heal(first)
        await deployment.tidied()

        names = await expiring(deployment, 600, 1000, 1000)
        await cluster.ask(first, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
        heir.pause()
        theirs = [key for key in names if owner(key) is first]
        deployment.excuse(theirs)
        await deployment.past(names)
        await deployment.delivered()
        deployment.expect(theirs)
        await cluster.ask(first, "CONFIG", "SET", "cluster-replica-no-failover", "no")
        await cluster.promoted(first)
        await deployment.delivered()
        heir.resume()
        await cluster.settled()
        await deployment.delivered()
        await deployment.tidied()
