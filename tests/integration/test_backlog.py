"""Gaps filled from Redis's replication backlog: one bridge, killed, and away for a moment.

Keys live for some tenths of a second, so all that expires meanwhile is in that backlog, or nowhere.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.contract import LEASE
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import KEYS, keys
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.deployments.short_lives import Writer, writing
from tests.support.proxy import TO_SERVER, Action
from tests.support.redis.scripts import script
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

BY_UNLINK = {"lazyfree-lazy-expire": "yes"}
"""Then an expiration looks unlike what the writer does."""
MANY = 700
"""More keys than a batch takes."""
TIMES = 5
"""How often the backlog is used in longer than three seconds, if it is used each second."""


@asynccontextmanager
async def one_bridge(kind: type[RedisServer], redis: dict[str, str]) -> AsyncIterator[Deployment]:
    """One that has the server keep a replication backlog."""
    async with Deployment.of(kind, redis=redis, settings={"BRIDGE_REDIS_BACKLOG": "keep"}) as deployment:
        await anchored(deployment)
        yield deployment


async def anchored(deployment: Deployment) -> Bridge:
    """Start a bridge. Return when a gap that begins now can be filled."""
    bridge = await deployment.ready_bridge(direct=True)

    async def is_anchored() -> bool:
        place, is_open = await deployment.redis.hmget(LEASE, "place", "open")
        stream = await deployment.redis.info("replication")
        kept = bool(stream["repl_backlog_active"])
        return kept and is_open == "0" and stream["master_replid"] in str(place)

    await wait_until(is_anchored, "a place with an anchor", PATIENCE)
    return bridge


async def away(deployment: Deployment, writer: Writer) -> None:
    """Kill the bridge, and start another one when much has expired."""
    deployment.bridges[-1].kill()
    await writer.goes_on()
    await writer.goes_on()
    await anchored(deployment)
    await writer.goes_on()


@pytest.mark.slow
@pytest.mark.both_kinds
async def test_nothing_is_lost_or_false_while_the_only_bridge_is_away(redis_kind: type[RedisServer]) -> None:
    async with one_bridge(redis_kind, BY_UNLINK) as deployment:
        async with writing(deployment, exact=False) as writer:
            for _ in range(2):
                await away(deployment, writer)
        first, *others = await deployment.gaps()
        assert "filled" not in first
        assert [gap["excess"] for gap in others] == [0, 0]
        assert all(gap["filled"] > 0 and gap["missed"] == 0 for gap in others)


async def expired_while_away(deployment: Deployment) -> None:
    """Kill the bridge, and start another one when a key has been set, and has expired."""
    deployment.bridges[-1].kill()
    await deployment.redis.set("short:1", "", px=20)

    async def is_gone() -> bool:
        return not await deployment.redis.exists("short:1")

    await wait_until(is_gone, "the key to expire", PATIENCE)
    await anchored(deployment)


async def test_redis_is_made_to_keep_a_backlog_without_a_fork(redis_kind: type[RedisServer]) -> None:
    async with one_bridge(redis_kind, BY_UNLINK) as deployment:
        await expired_while_away(deployment)
        await filled(deployment)
        assert (await deployment.redis.info("stats"))["total_forks"] == 0, "the server has not sent its data"


async def test_the_backlog_is_used_before_redis_drops_it() -> None:
    async with one_bridge(RedisServer, {**BY_UNLINK, "repl-backlog-ttl": "3"}) as deployment:
        stream = (await deployment.redis.info("replication"))["master_replid"]

        async def is_used() -> bool:
            return int((await deployment.redis.info("stats"))["sync_partial_ok"]) > TIMES

        await wait_until(is_used, "attachments", PATIENCE)
        now = await deployment.redis.info("replication")
        assert (now["repl_backlog_active"], now["master_replid"]) == (1, stream)


async def announced(deployment: Deployment, count: int) -> None:
    """Return when that many keys are announced. Each is, once; not all deadlines were recorded."""

    async def are_announced() -> bool:
        return len(await deployment.stored() or ()) >= count

    await wait_until(are_announced, "what has expired", PATIENCE)
    assert sorted(message.key for message in await deployment.stored() or ()) == sorted(keys(count))


async def filled(deployment: Deployment) -> None:
    """Return when there is the record of a second gap, in which one key has expired."""

    async def is_filled() -> bool:
        return [gap.get("filled") for gap in await deployment.gaps()] == [None, 1]

    await wait_until(is_filled, "the record of the second gap", PATIENCE)


async def test_behind_sentinels_the_stream_is_read_from_a_replica(redis_kind: type[RedisServer]) -> None:
    settings = {"BRIDGE_REDIS_BACKLOG": "read"}
    async with SentinelDeployment.with_sentinels(redis_kind, settings=settings) as deployment:
        await anchored(deployment)
        await expired_while_away(deployment)
        await filled(deployment)
        assert (await deployment.redis.info("replication"))["connected_slaves"] == 1


async def test_where_expirations_look_like_deletions_the_record_says_how_many_are_which() -> None:
    async with one_bridge(RedisServer, {}) as deployment:
        async with writing(deployment, exact=False) as writer:
            await away(deployment, writer)
        assert [gap["filled"] > 0 for gap in (await deployment.gaps())[1:]] == [True]


async def test_a_gap_that_cannot_be_told_of_opens_as_ever() -> None:
    async with one_bridge(RedisServer, BY_UNLINK) as deployment:
        deployment.bridges[-1].kill()
        await deployment.redis.set("some:key", "", px=10)
        await deployment.redis.select(9)
        await deployment.redis.flushdb()
        await deployment.redis.select(0)
        await anchored(deployment)

        async def is_told() -> bool:
            return len(await deployment.gaps()) == 2

        await wait_until(is_told, "the second gap", PATIENCE)
        assert "filled" not in (await deployment.gaps())[1]


async def test_in_a_cluster_each_primary_is_read(redis_kind: type[RedisServer]) -> None:
    settings = {"BRIDGE_REDIS_BACKLOG": "read"}
    async with ClusterDeployment.with_cluster(redis_kind, redis=BY_UNLINK, settings=settings) as deployment:
        cluster, bridge = deployment.cluster, await deployment.ready_bridge()
        primaries = await cluster.primaries()

        async def are_anchored() -> bool:
            for node in primaries:
                [lease] = await deployment.own(node, "lease")
                place, is_open = await cluster.ask(node, "HMGET", lease, "place", "open")
                if is_open != "0" or (await cluster.replication(node))["master_replid"] not in str(place):
                    return False
            return True

        await wait_until(are_anchored, "a place with an anchor everywhere", PATIENCE)
        bridge.kill()
        await deployment.set(keys(KEYS), 50, known=False)

        async def are_gone() -> bool:
            return not await cluster.client.exists(*keys(KEYS))

        await wait_until(are_gone, "the keys to expire", PATIENCE)
        await deployment.ready_bridge()
        await announced(deployment, KEYS)
        filled = [int(gap["filled"]) for gap in await deployment.gaps() if "filled" in gap]
        assert (len(filled), sum(filled)) == (len(primaries), KEYS)


@pytest.mark.parametrize("action", [Action.HOLD, Action.HOLD_REPLY])
async def test_a_bridge_that_is_killed_as_it_fills_a_gap_announces_nothing_twice_and_loses_nothing_uncounted(
    redis_kind: type[RedisServer], action: Action
) -> None:
    """Before its first batch, another one fills the gap; behind it, a gap opens, and counts the rest."""
    async with one_bridge(redis_kind, BY_UNLINK) as deployment:
        deployment.bridges[-1].kill()
        await deployment.set(keys(MANY), 20, known=False)

        async def are_gone() -> bool:
            return not await deployment.redis.exists(*keys(MANY))

        await wait_until(are_gone, "the keys to expire", PATIENCE)
        met = deployment.redis_link.break_on(TO_SERVER, script("apply"), action)
        second = await deployment.start_bridge()
        await met.reached(PATIENCE)
        second.kill()
        await anchored(deployment)
        if action is Action.HOLD:
            await announced(deployment, MANY)
        else:
            await deployment.settled()
            found = [message.key for message in await deployment.stored() or ()]
            assert len(found) == len(set(found))
            assert sum(gap["missed"] or 0 for gap in await deployment.gaps()) == MANY - len(found)
