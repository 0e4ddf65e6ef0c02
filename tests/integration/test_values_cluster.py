"""Values on a Redis Cluster: proven where the server tracks what scripts read, and kept when a ledger moves."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.harness.published import Event, written
from tests.support.redis.cluster import RedisCluster
from tests.support.servers import Bridge, Redis8Server, RedisServer, ValkeyServer, require, wait_until

pytestmark = pytest.mark.cluster


def settings(cluster: RedisCluster, **more: str) -> dict[str, str]:
    """Of a bridge that reads values as soon as it knows a deadline."""
    return {
        "BRIDGE_REDIS_URL": cluster.url,
        "BRIDGE_SINK": "stdout",
        "BRIDGE_VALUES": "*",
        "BRIDGE_VALUES_LEAD": "60",
        **more,
    }


def said(events: list[Event]) -> Mapping[str, Any]:
    """Key → what was said of it."""
    return {event["data"]["key"]: event["data"] for event in events}


@pytest.mark.parametrize("kind", [RedisServer, Redis8Server, ValkeyServer], ids=lambda kind: kind.distribution)
async def test_values_of_all_nodes_go_along_and_are_proven_where_that_is_possible(kind: type[RedisServer]) -> None:
    require(kind)
    async with RedisCluster.of(kind, primaries=3, replicas=0) as cluster, Bridge(settings(cluster)) as bridge:
        await bridge.ready()
        names = [f"key:{number}" for number in range(30)]
        for name in names:
            await cluster.client.set(name, f"v{name}", px=2500)
        await wait_until(lambda: len(written(bridge)) >= len(names), bridge.log)
        found, log = said(written(bridge)), bridge.log()
    assert {name: found[name]["value"] for name in names} == {name: f"v{name}" for name in names}
    assert {found[name]["value_exact"] for name in names} == {kind is not RedisServer}
    assert ("values.doubted" in log) == (kind is RedisServer)


@pytest.mark.both_kinds
async def test_a_value_that_waits_for_the_broker_moves_with_the_ledger(redis_kind: type[RedisServer]) -> None:
    async with RedisCluster.of(redis_kind, primaries=3, replicas=0) as cluster:
        first, second, _ = await cluster.primaries()
        slot = await cluster.ledger_slot(first)
        own = f"{{expiry-bridge:0:{await cluster.number(first)}}}"
        stuck = settings(cluster, BRIDGE_SINK="jetstream", BRIDGE_NATS_URL="nats://127.0.0.1:1")
        async with Bridge(stuck) as bridge:
            await wait_until(lambda: "gap.closed" in bridge.log(), bridge.log)
            owner_of = await cluster.owners()
            names = [name for name in (f"key:{number}" for number in range(200)) if owner_of(name) is first][:5]
            for name in names:
                await cluster.client.set(name, "v", px=1500)

            async def are_claimed() -> bool:
                return int(await cluster.ask(first, "HGET", f"{own}:lease", "depth") or 0) >= len(names)

            await wait_until(are_claimed, bridge.log)
            await cluster.move_slots([slot], second)
            bridge.kill()
        async with Bridge(settings(cluster)) as bridge:
            await wait_until(lambda: {*names} <= said(written(bridge)).keys(), bridge.log)
            found = said(written(bridge))
        assert {found[name]["value"] for name in names} == {"v"}
