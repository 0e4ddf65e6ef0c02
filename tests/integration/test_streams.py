"""`BRIDGE_SINK=redis`, as its user sees it: beside the keys or elsewhere; `check`, `verify`, `status`."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.integration.doctor import SECRET, SOUND, examine, levels
from tests.integration.oracle import QUICK, World
from tests.support.kinds import on_both_kinds
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.commands import set_for, user_of
from tests.support.servers import PATIENCE, Bridge, RedisServer, ValkeyServer, wait_until

STREAMS = "Redis Streams/"


@pytest.fixture
async def world(one_redis: RedisServer) -> AsyncIterator[World]:
    """A Redis that has the keys and the stream."""
    async with user_of(one_redis) as user:
        yield World({"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_SINK": "redis"}, user)


async def entries(redis: Redis, kind: str, stream: str = "expired") -> list[Any]:
    """The events of that type."""
    found = [json.loads(fields[b"body"]) for _, fields in await redis.xrange(stream)]  # type: ignore[index, union-attr]
    return [event for event in found if event["type"] == kind]


@pytest.mark.parametrize(
    "settings", [{}, {"BRIDGE_SINK_REDIS_STREAM": "gone:{prefix}", "BRIDGE_CONTENT_MODE": "binary"}]
)
async def test_what_is_delivered_is_verified(world: World, settings: dict[str, str]) -> None:
    world.settings = {**world.settings, **settings}
    async with world.bridge() as bridge:
        await bridge.ready()
        found = await world.verified(*QUICK)
    assert (found["delivered"], found["missed"], found["duplicates"]) == (200, 0, 0)
    assert found["read_from"].startswith("Redis Stream ")


async def test_with_shards_each_is_delivered_once(world: World) -> None:
    world.settings = {**world.settings, "BRIDGE_SHARDS": "4"}
    async with world.bridge() as bridge:
        await bridge.ready()
        found = await world.verified(*QUICK)
    assert (found["delivered"], found["missed"], found["duplicates"]) == (200, 0, 0)


async def test_status_shows_what_was_published_last(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        await set_for(world.user, b"share:1", 50)
        await wait_until(lambda: any_entry(world.user))
    with Bridge(world.settings, "status", "--json") as status:
        assert await status.exited() == 0
        [last] = json.loads(status.output())["broker"]["published_last"]
    assert last["via"] == "notification"


async def any_entry(redis: Redis) -> bool:
    return bool(await entries(redis, "redis.key.expired"))


async def test_the_stream_beside_the_keys_is_never_announced_though_it_has_a_ttl() -> None:
    await on_both_kinds(stream_that_expires)


async def stream_that_expires(kind: type[RedisServer]) -> None:
    """Somebody gives it one; the next message makes it anew."""
    with kind() as server:
        settings = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_SINK": "redis"}
        async with user_of(server) as redis, Bridge(settings) as bridge:
            await bridge.ready()
            await set_for(redis, b"share:1", 50)
            await wait_until(lambda: any_entry(redis))
            await redis.pexpire("expired", 100)
            await redis.pexpire("{expired}:appended", 100)
            await wait_until(lambda: gone(redis))
            await set_for(redis, b"share:2", 50)
            await wait_until(lambda: any_entry(redis))
            await set_for(redis, b"share:3", 50)

            async def are_there() -> bool:
                return len(await entries(redis, "redis.key.expired")) == 2

            await wait_until(are_there)
            subjects = [event["subject"] for event in await entries(redis, "redis.key.expired")]
            assert subjects == ["share:2", "share:3"]


async def gone(redis: Redis) -> bool:
    return not await redis.exists("expired", "{expired}:appended")


@pytest.mark.cluster
@pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
async def test_the_streams_of_a_cluster_are_on_the_nodes_of_their_slots(kind: type[RedisServer]) -> None:
    """And the bridge is killed when entries are appended, and not settled."""
    names = [f"{prefix}:{number}" for prefix in ("share", "cart", "session") for number in range(50)]
    async with RedisCluster.of(kind, replicas=0, config={"notify-keyspace-events": "Egxe"}) as cluster:
        settings = {
            "BRIDGE_REDIS_URL": f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}",
            "BRIDGE_SINK": "redis",
            "BRIDGE_SINK_REDIS_STREAM": "gone:{prefix}",
        }

        async def subjects() -> list[str]:
            found = []
            for prefix in ("share", "cart", "session"):
                stored = cast("list[tuple[str, dict[str, str]]]", await cluster.client.xrange(f"gone:{prefix}"))
                found += [json.loads(fields["body"])["subject"] for _, fields in stored]
            return sorted(found)

        for turn in range(2):
            async with Bridge(settings) as bridge:
                await bridge.ready(PATIENCE)
                for name in names:
                    await cluster.client.set(f"{name}:{turn}", "", px=2000)
                await wait_until(partial(recorded, bridge, subjects, (turn + 1) * len(names)))
                await wait_until(partial(appended, subjects, turn * len(names)))
                bridge.kill()
        wanted = sorted(f"{name}:{turn}" for name in names for turn in range(2))
        async with Bridge(settings) as bridge:
            await bridge.ready(PATIENCE)

            async def are_there() -> bool:
                return set(await subjects()) >= set(wanted)

            await wait_until(are_there, bridge.log, PATIENCE)
            assert await bridge.stop() == 0
        assert await subjects() == wanted


async def recorded(bridge: Bridge, subjects: Callable[[], Awaitable[list[str]]], count: int) -> bool:
    """Whether so many keys are in the streams or in the ledger. Only those survive the death of the bridge."""
    there = len(await subjects())
    _, metrics = await bridge.get("/metrics")
    return there + sum(map(float, re.findall(r"^bridge_ledger_entries\S* (\S+)$", metrics, re.MULTILINE))) >= count


async def appended(subjects: Callable[[], Awaitable[list[str]]], least: int) -> bool:
    return len(await subjects()) > least


# The doctor.


def test_a_sound_server_passes(one_redis: RedisServer) -> None:
    with RedisServer(SOUND) as sink:
        rows = examine(
            0, "--publish", redis_url=one_redis.url, sink="redis", sink_redis_url=sink.url, sink_redis_maxlen="1000"
        )
    own = {name.removeprefix(STREAMS): row for name, row in rows.items() if name.startswith(STREAMS)}
    assert {row["level"] for row in own.values()} == {"pass"}
    assert {name: row["found"] for name, row in own.items()} == {
        "connection": f"127.0.0.1:{sink.port}",
        "length": "about 1000 entries are kept, and older ones dropped, whether or not they were consumed",
        "stream": "expired does not exist yet: its first message creates it",
        "rights": "user default may append to expired",
        "memory": "noeviction, no maxmemory: a full server takes nothing new",
        "persistence": "append-only file",
        "test publish": "the last entry of expired; its type is redis.expiry.check",
    }


async def test_what_is_wrong_is_found_and_its_remedy_fixes_it(one_redis: RedisServer) -> None:
    with RedisServer({"maxmemory-policy": "allkeys-lru"}) as sink:
        async with Redis(port=sink.port) as admin:
            await admin.set("expired", "")
            settings = {"redis_url": one_redis.url, "sink": "redis", "sink_redis_url": sink.url}
            rows = await asyncio.to_thread(examine, 1, **settings)
            found = {name: level for name, level in levels(rows).items() if name.startswith(STREAMS)}
            assert found == {
                f"{STREAMS}stream": "fail",
                f"{STREAMS}memory": "fail",
                f"{STREAMS}persistence": "warn",
                f"{STREAMS}length": "warn",
            }
            assert rows[f"{STREAMS}memory"]["remedy"].startswith("CONFIG SET maxmemory-policy noeviction")
            await admin.config_set("maxmemory-policy", "noeviction")
            await admin.config_set("appendonly", "yes")
            settings |= {"sink_redis_stream": "gone:{prefix}", "sink_redis_maxlen": "10"}
            rows = await asyncio.to_thread(examine, 0, **settings)
    assert not {name for name in levels(rows) if name.startswith(STREAMS)}


@pytest.mark.parametrize("stream", ["expired", "gone:{prefix}"])
async def test_a_user_with_nothing_but_the_permissions_shown_can_run_the_bridge(
    one_redis: RedisServer, stream: str
) -> None:
    with RedisServer(SOUND) as sink:
        async with Redis(port=sink.port) as admin:
            await admin.execute_command(
                "ACL", "SETUSER", "ann", "on", f">{SECRET}", "+info", "+ping", "+client|setname"
            )  # type: ignore[no-untyped-call]
            url = sink.url.replace("://", f"://ann:{SECRET}@")
            settings = {"redis_url": one_redis.url, "sink": "redis", "sink_redis_url": url, "sink_redis_stream": stream}
            rows = await asyncio.to_thread(examine, 1, **settings)
            await admin.execute_command(*rows[f"{STREAMS}rights"]["remedy"].split())  # type: ignore[no-untyped-call]
            async with (
                Bridge({f"BRIDGE_{name.upper()}": value for name, value in settings.items()}) as bridge,
                user_of(one_redis) as user,
            ):
                await bridge.ready()
                await set_for(user, b"share:1", 50)
                name = stream.replace("{prefix}", "share")

                async def is_there() -> bool:
                    return await admin.exists(name) == 1

                await wait_until(is_there, bridge.log)


def test_a_server_that_cannot_be_reached_is_one_row(one_redis: RedisServer) -> None:
    rows = examine(1, redis_url=one_redis.url, sink="redis", sink_redis_url="redis://127.0.0.1:1")
    assert [name for name in rows if name.startswith(STREAMS)] == [f"{STREAMS}connection"]
    assert rows[f"{STREAMS}connection"]["remedy"] == "start Redis there, or point BRIDGE_SINK_REDIS_URL at where it is"
