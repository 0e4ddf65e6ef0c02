"""What becomes of a ledger whose slot moves to another primary of a cluster, and of the primary that had it."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from bridge.limits import LedgerLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Claim, Lease
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.scene import now_ms
from tests.support.limits import QUICK
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.nodes import slot_of
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.measured]


async def held_by(deployment: ClusterDeployment, bridge: Bridge) -> RedisServer | None:
    """A primary whose ledger a bridge holds, when another one holds the rest."""
    holders = dict[RedisServer, str]()
    for node in await deployment.cluster.primaries():
        lease = f"{{expiry-bridge:0:{await deployment.cluster.number(node)}}}:lease"
        holders[node] = await deployment.cluster.ask(node, "HGET", lease, "holder") or ""
    own = [node for node, holder in holders.items() if f"-{bridge.pid}-" in holder]
    return own[0] if own and len(own) < len(holders) and all(holders.values()) else None


async def test_the_gap_of_a_primary_with_another_ledger_begins_where_the_former_one_was_left_by_another_bridge(
    redis_kind: type[RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the slot takes to move: before it has, the lease does not lapse.
    monkeypatch.setattr(Bridge, "limits", replace(QUICK, ledger=replace(QUICK.ledger, lease_ms=60_000)))
    async with ClusterDeployment.with_cluster(redis_kind, replicas=0) as deployment:
        cluster, frozen = deployment.cluster, await deployment.ready_bridge()
        other = await deployment.start_bridge()
        node: RedisServer | None = None

        async def is_shared() -> bool:
            nonlocal node
            node = await held_by(deployment, frozen)
            return node is not None

        await wait_until(is_shared, frozen.log, PATIENCE)
        assert node is not None
        await other.ready(PATIENCE)
        frozen.pause()
        moment = now_ms()  # from now on nobody hears what expires there
        slot = slot_of(f"{{expiry-bridge:0:{await cluster.number(node)}}}")
        (to, *_) = (primary for primary in await cluster.primaries() if primary is not node)
        await cluster.move_slot(slot, to)
        later: list[dict[str, Any]] = []

        async def is_told() -> bool:
            at_node = [gap for gap in await deployment.gaps() if gap["node"] == f"127.0.0.1:{node.port}"]
            later[:] = [gap for gap in at_node if gap["closed_ms"] > moment]
            return bool(later)

        try:
            await wait_until(is_told, other.log, PATIENCE)
        finally:
            frozen.resume()
        first = later[0]  # the epoch may be over soon: the next gap begins where this one was closed
        assert first["opened_ms"] <= moment, f"it begins {first['opened_ms'] - moment} ms too late: {later}"


async def test_a_ledger_is_adopted_whichever_of_its_keys_have_come(redis_kind: type[RedisServer]) -> None:
    async with RedisCluster.of(redis_kind, replicas=0) as cluster:
        first, second, _ = await cluster.primaries()
        own, stray = [Names("expiry-bridge", 0, await cluster.number(node)) for node in (first, second)]
        await cluster.ask(second, "ZADD", stray.deadlines.decode(), 1, "share:1")
        await cluster.ask(second, "HSET", stray.lease.decode(), "until", 0, "recovered", 3, "ambiguous", 2)
        slot = slot_of(stray.lease)
        await cluster.open_slot(slot, first)
        await cluster.move_keys(slot, first, 1)

        settings = Settings.model_validate({"redis_url": cluster.url, "sink": "stdout"})
        endpoint = replace(Endpoint.of(settings), host="127.0.0.1", port=first.port)
        with closing(Commands(endpoint)) as commands:
            ledger = Ledger(commands, own, LedgerLimits())
            lease = await ledger.acquire(Claim("a bridge"))
            assert isinstance(lease, Lease)
            assert await ledger.adopt(lease.fence, 1, stray.shard) == 0
            await cluster.move_keys(slot, first)
            assert await ledger.adopt(lease.fence, 2, stray.shard) == 0
            assert await ledger.moved(0, 10) == [(b"share:1", 1)]
            counts = await cluster.ask(first, "HMGET", own.lease.decode(), "recovered", "ambiguous")
            assert counts == ["3", "2"], "of a gap that was open there"
