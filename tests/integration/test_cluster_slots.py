"""Slots of a Redis Cluster that move, also those of ledgers themselves: each key that expires is stored, and once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, islice

import pytest

from tests.support.deployments.cluster import ClusterDeployment, keys_of
from tests.support.deployments.scene import LASTING_MS, keys
from tests.support.deployments.telemetry import events
from tests.support.redis.nodes import slot_of
from tests.support.servers import PATIENCE, RedisServer, ValkeyServer, wait_until

pytestmark = pytest.mark.cluster


@pytest.mark.measured
async def test_nodes_come_and_go_and_ledgers_move_with_their_slots(redis_kind: type[RedisServer]) -> None:
    async with ClusterDeployment.with_cluster(redis_kind) as deployment:
        cluster = deployment.cluster
        bridge = await deployment.ready_bridge()
        first, second, third = await cluster.primaries()
        await a_node_comes_and_goes(deployment, first, second)
        for number, (source, target) in enumerate([(first, second), (third, first)]):
            await a_ledger_moves(deployment, source, target, 10_000 * number)
        assert not events(bridge, "redis.refused")


async def a_node_comes_and_goes(deployment: ClusterDeployment, first: RedisServer, second: RedisServer) -> None:
    """It gets slots while their keys expire, and a ledger; when it has none any more, it has no ledger either."""
    cluster = deployment.cluster
    node = await cluster.add_node()
    begin = await cluster.ledger_slot(first) + 1
    slots = range(begin, begin + 40)
    there = keys_of(slots, 1_000_000)
    for to in (node, second):
        for ttl_ms in (500, 1000, 2000, 6000):
            await deployment.set(islice(there, 60), ttl_ms, known=False)
        lasting = await deployment.set(islice(there, 1), LASTING_MS, known=False)
        await cluster.move_slots(slots, to)
        await deployment.recorded()  # so there is a ledger; what is born and expires before that, nobody is told of
        deployment.unexpect(lasting)
        await deployment.set(islice(there, 60), 500, known=False)
        await deployment.delivered()
        await deployment.tidied()
        assert (node in await cluster.primaries()) == (to is node)

    async def is_replica() -> bool:
        return bool((await cluster.replication(node))["role"] == "slave")

    await wait_until(is_replica, "the node without slots to serve another one", PATIENCE)


async def a_ledger_moves(deployment: ClusterDeployment, source: RedisServer, target: RedisServer, start: int) -> None:
    """With all that is in it: some thousand deadlines, claims that the broker has not acked, a dead letter."""
    cluster = deployment.cluster
    slot = await cluster.ledger_slot(source)
    dead = f"{{expiry-bridge:0:{await cluster.number(source)}}}:dead"
    names = keys(3000, start)
    await deployment.record(names[:2900])
    await deployment.set(names[:2900], 6000)
    deployment.broker.pause()
    await deployment.set(names[2900:], 50)

    async def is_claimed() -> bool:
        return any([await cluster.ask(source, "XLEN", outbox) for outbox in await deployment.own(source, "outbox")])

    await wait_until(is_claimed, "claims", PATIENCE)
    await cluster.ask(source, "XADD", dead, "*", "letter", start)
    await cluster.move_slots(range(slot, slot + 1), target)

    async def has_followed() -> bool:
        found = [await cluster.ask(target, "XRANGE", key, "-", "+") for key in await deployment.own(target, "dead")]
        return {"letter": str(start)} in [fields for entries in found for _, fields in entries]

    await wait_until(has_followed, lambda: f"the dead letter\n{deployment.bridges[-1].log()}", PATIENCE)
    deployment.broker.resume()
    await deployment.delivered()
    await deployment.tidied()


async def test_what_expires_in_a_slot_that_is_left_half_way_is_stored_and_so_is_what_moves_past_a_dead_bridge(
    redis_kind: type[RedisServer],
) -> None:
    async with ClusterDeployment.with_cluster(redis_kind) as deployment:
        cluster = deployment.cluster
        bridge = await deployment.ready_bridge()
        first, second, _ = await cluster.primaries()
        begin = await cluster.ledger_slot(first) + 1
        await a_slot_is_left_half_way(deployment, begin, second)
        await a_slot_is_left_half_way(deployment, begin + 1, second, first)

        slots = range(begin + 2, begin + 12)
        there = keys_of(slots)
        half, later = list(islice(there, 75)), list(islice(there, 75))
        await deployment.record([*half, *later])
        await deployment.set(half, 3000)
        await deployment.set(later, 8000)
        await cluster.open_slot(slots[0], second)
        await cluster.move_keys(slots[0], second, 5)
        bridge.kill()
        await cluster.move_slots(slots, second)
        await deployment.past(half)
        await deployment.expire_lease()
        await deployment.ready_bridge()
        await deployment.delivered()
        await deployment.tidied()


async def a_slot_is_left_half_way(
    deployment: ClusterDeployment, slot: int, to: RedisServer, back: RedisServer | None = None
) -> None:
    """Open, with some of its keys carried, while both parts expire; then it is closed, or all goes `back`."""
    cluster = deployment.cluster
    there = keys_of(range(slot, slot + 1))
    first, later = list(islice(there, 30)), list(islice(there, 30))
    await deployment.record([*first, *later])
    await deployment.set(first, 2000)
    await deployment.set(later, 8000)
    await cluster.open_slot(slot, to)
    assert len(await cluster.move_keys(slot, to, 30)) == 30
    await deployment.set(islice(there, 10), 300, known=False)  # they are born there, by ASK
    deployment.excuse(later)
    await deployment.delivered()
    deployment.expect(later)
    if back is None:
        await cluster.move_keys(slot, to)
        await cluster.close_slot(slot, to)
    else:
        await cluster.take_back(slot, to, back)
    await deployment.delivered()
    await deployment.tidied()


async def test_valkeys_atomic_migration_loses_nothing_and_stores_nothing_twice() -> None:
    async with ClusterDeployment.with_cluster(ValkeyServer) as deployment:
        cluster = deployment.cluster
        await deployment.ready_bridge()
        by_number = {await cluster.number(node): node for node in await cluster.primaries()}
        first, *_, last = (by_number[number] for number in sorted(by_number))
        own, there = await cluster.ledger_slot(last), await cluster.slots(last)
        middle = there[len(there) // 2]
        without = range(middle + 1, middle + 801) if own <= middle else range(there[0], there[0] + 800)
        for number, slots in enumerate((without, range(max(own - 400, there[0]), own + 400))):
            start = 5_000_000 * (number + 1)
            staying = (key for key in keys_of(range(there[0], there[-1] + 1), start) if slot_of(key) not in slots)
            await deployment.set(islice(staying, 300), 8000, known=False)
            async with load(deployment, slots, 1_000_000 * number):
                await cluster.migrate(slots, first)
            await deployment.delivered()
            await deployment.tidied()


@asynccontextmanager
async def load(deployment: ClusterDeployment, slots: range, start: int) -> AsyncIterator[None]:
    """Keys are set all the time, which live for a moment, or for some seconds; some before, some after what is done."""
    there, ended = keys_of(slots, start), asyncio.Event()

    async def write() -> None:
        for ttl_ms in cycle((300, 900, 2000, 5000)):
            await deployment.set(islice(there, 100), ttl_ms, known=False)
            if ended.is_set():
                return

    async def some_more() -> None:
        enough = len(deployment.expected) + 500
        await wait_until(lambda: len(deployment.expected) > enough, "load", PATIENCE)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await some_more()
        yield
        await some_more()
        ended.set()
