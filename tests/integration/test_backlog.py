"""Gaps filled from Redis's replication backlog: one bridge, killed, and away for a moment.

Keys live for some tenths of a second, so all that expires meanwhile is in that backlog, or nowhere.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.integration.short_lives import Writer, writing
from tests.support.contract import LEASE
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

BY_UNLINK = {"lazyfree-lazy-expire": "yes"}
"""Then an expiration looks unlike what the writer does."""


async def kept(deployment: Deployment) -> None:
    """Have the server keep a replication backlog, as one with a replica does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", deployment.redis_server.port)
    writer.write(b"REPLCONF capa eof\r\n")
    await reader.readline()
    writer.write(b"PSYNC ? -1\r\n")

    async def is_kept() -> bool:
        return bool((await deployment.redis.info("replication"))["repl_backlog_active"])

    await wait_until(is_kept, "a replication backlog", PATIENCE)
    writer.transport.abort()


@asynccontextmanager
async def one_bridge(kind: type[RedisServer], redis: dict[str, str]) -> AsyncIterator[Deployment]:
    """With the setting, on a server that keeps a replication backlog."""
    async with Deployment.of(kind, redis=redis, settings={"BRIDGE_REDIS_BACKLOG": "read"}) as deployment:
        await kept(deployment)
        await anchored(deployment)
        yield deployment


async def anchored(deployment: Deployment) -> Bridge:
    """Start a bridge. Return when a gap that begins now can be filled."""
    bridge = await deployment.ready_bridge(direct=True)

    async def is_anchored() -> bool:
        place = str(await deployment.redis.hget(LEASE, "place"))
        return await deployment.redis.hget(LEASE, "open") == "0" and len(place.split()) > 3

    await wait_until(is_anchored, "a place with an anchor", PATIENCE)
    return bridge


async def away(deployment: Deployment, writer: Writer) -> None:
    """Kill the bridge, and start another one when much has expired."""
    deployment.bridges[-1].kill()
    await writer.goes_on()
    await writer.goes_on()
    await anchored(deployment)
    await writer.goes_on()


@pytest.mark.both_kinds
async def test_nothing_is_lost_or_false_while_the_only_bridge_is_away(redis_kind: type[RedisServer]) -> None:
    async with one_bridge(redis_kind, BY_UNLINK) as deployment:
        async with writing(deployment) as writer:
            for _ in range(2):
                await away(deployment, writer)
        first, *others = await deployment.gaps()
        assert "filled" not in first
        assert [gap["excess"] for gap in others] == [0, 0]
        assert all(gap["filled"] > 0 and gap["missed"] == 0 for gap in others)
        assert (await deployment.redis.info("stats"))["total_forks"] == 0


async def test_redis_is_made_to_keep_a_backlog_without_a_fork(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind, redis=BY_UNLINK, settings={"BRIDGE_REDIS_BACKLOG": "keep"}) as deployment:
        await anchored(deployment)

        async def is_kept() -> bool:
            return bool((await deployment.redis.info("replication"))["repl_backlog_active"])

        await wait_until(is_kept, "a replication backlog", PATIENCE)
        stream = (await deployment.redis.info("replication"))["master_replid"]

        async def is_anchored_there() -> bool:
            return stream in str(await deployment.redis.hget(LEASE, "place"))

        await wait_until(is_anchored_there, "an anchor in that stream", PATIENCE)
        deployment.bridges[-1].kill()
        await deployment.redis.set("short:1", "", px=20)
        await anchored(deployment)
        await filled(deployment)
        assert (await deployment.redis.info("stats"))["total_forks"] == 0


async def filled(deployment: Deployment) -> None:
    """Return when there is the record of a second gap, in which one key has expired."""

    async def is_filled() -> bool:
        return [gap.get("filled") for gap in await deployment.gaps()] == [None, 1]

    await wait_until(is_filled, "the record of the second gap", PATIENCE)


async def test_behind_sentinels_the_stream_is_read_from_a_replica(redis_kind: type[RedisServer]) -> None:
    settings = {"BRIDGE_REDIS_BACKLOG": "read"}
    async with SentinelDeployment.with_sentinels(redis_kind, settings=settings) as deployment:
        await anchored(deployment)
        deployment.bridges[-1].kill()
        await deployment.redis.set("short:1", "", px=20)
        await anchored(deployment)
        await filled(deployment)
        assert (await deployment.redis.info("replication"))["connected_slaves"] == 1


async def test_where_expirations_look_like_deletions_the_record_says_how_many_are_which() -> None:
    async with one_bridge(RedisServer, {}) as deployment:
        async with writing(deployment) as writer:
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
