"""JetStream as users have it: behind a leaf node, imported from an account, with limits, with transformed subjects.

In each, `check` passes, a bridge delivers, and `verify` finds all of it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig, SubjectTransform

from bridge.commands.embedded import free_port
from tests.integration.doctor import SOUND, Rows, examine, levels
from tests.integration.oracle import QUICK, World
from tests.support.redis.commands import user_of
from tests.support.servers import Bridge, NatsServer, RedisServer, require

pytestmark = pytest.mark.unmeasured

BOUND = {"nats_max_bytes": "5000000"}


@pytest.fixture
async def sound_redis() -> AsyncIterator[RedisServer]:
    require(RedisServer)
    with RedisServer(SOUND) as server:
        yield server


async def all_works(redis: RedisServer, settings: Mapping[str, str]) -> None:
    chosen = {"redis_url": redis.url, **settings}
    assert not await failed(chosen, "--publish")
    async with user_of(redis) as user:
        world = World({f"BRIDGE_{name.upper()}": value for name, value in chosen.items()}, user)
        async with world.bridge() as bridge:
            await bridge.ready()
            assert not await failed(chosen, "--publish")
            found = await world.verified(*QUICK)
    assert (found["ok"], found["delivered"], found["missed"]) == (True, 200, 0)


async def examined(settings: Mapping[str, str], *flags: str, status: int = 0) -> Rows:
    return await asyncio.to_thread(lambda: examine(status, *flags, **settings))


async def failed(settings: Mapping[str, str], *flags: str) -> list[str]:
    return [name for name, level in levels(await examined(settings, *flags)).items() if level == "fail"]


@asynccontextmanager
async def jetstream(server: NatsServer, login: str = "") -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(server.url.replace("//", f"//{login}"))
    try:
        yield client.jetstream()
    finally:
        await client.close()


# A leaf node.


@pytest.mark.parametrize("own", ["with a JetStream of its own", "without one"])
async def test_a_bridge_at_a_leaf_node_works_with_the_stream_of_the_hubs_domain(
    sound_redis: RedisServer, tmp_path: Path, own: str
) -> None:
    port = free_port()
    hub = NatsServer(
        f'server_name: hub\njetstream {{ store_dir: "{tmp_path}/hub", domain: hub }}\n'
        f'leafnodes {{ listen: "127.0.0.1:{port}" }}'
    )
    here = (
        f'jetstream {{ store_dir: "{tmp_path}/leaf", domain: leaf }}' if own.startswith("with ") else "jetstream: false"
    )
    leaf = NatsServer(f'server_name: leaf\n{here}\nleafnodes {{ remotes [ {{ url: "nats://127.0.0.1:{port}" }} ] }}')
    with hub, leaf:
        await all_works(sound_redis, {"nats_url": leaf.url, "nats_domain": "hub"})
        async with jetstream(hub) as found:
            assert (await found.stream_info("EXPIRY")).state.messages


async def test_without_a_jetstream_of_its_own_a_leaf_node_is_told_of_the_setting(
    sound_redis: RedisServer, tmp_path: Path
) -> None:
    with NatsServer("jetstream: false") as leaf:
        rows = await examined({"redis_url": sound_redis.url, "nats_url": leaf.url}, status=1)
        assert "BRIDGE_NATS_DOMAIN" in rows["NATS/JetStream"]["remedy"]
        there = {"redis_url": sound_redis.url, "nats_url": leaf.url, "nats_domain": "nowhere"}
        rows = await examined(there, status=1)
        assert "$JS.nowhere.API" in rows["NATS/JetStream"]["found"]
        async with Bridge({f"BRIDGE_{name.upper()}": value for name, value in there.items()}) as bridge:
            assert await bridge.exited() == 1
            assert "no JetStream answers to $JS.nowhere.API" in bridge.log()


# Another account.


async def test_an_imported_api_is_used_by_its_prefix(sound_redis: RedisServer) -> None:
    config = """accounts {
      A { jetstream: enabled, users: [ { user: a, password: hunter2 } ],
          exports: [ { service: "$JS.API.>", response_type: stream }, { service: "expired.>" } ] }
      B { users: [ { user: b, password: hunter2 } ],
          imports: [ { service: { account: A, subject: "$JS.API.>" }, to: "JS.a.API.>" },
                     { service: { account: A, subject: "expired.>" } } ] }
    }"""
    with NatsServer(config) as server:
        login = {"nats_url": server.url, "nats_user": "b", "nats_password": "hunter2"}
        await all_works(sound_redis, {**login, "nats_api_prefix": "JS.a.API"})


# Limits.


async def test_an_account_that_requires_a_bound_of_bytes_gets_one(sound_redis: RedisServer) -> None:
    config = """accounts { A {
      jetstream: { max_file: 10000000, max_bytes_required: true, disk_max_stream_bytes: 6000000 },
      users: [ { user: a, password: hunter2 } ] } }"""
    with NatsServer(config) as server:
        login = {"nats_url": server.url, "nats_user": "a", "nats_password": "hunter2"}
        for wrong, found in (
            ({}, "this account requires that every stream has a bound of bytes"),
            ({"nats_max_bytes": "7000000"}, "a stream of this account may keep 6000000 bytes"),
        ):
            settings = {"redis_url": sound_redis.url, **login, **wrong}
            row = (await examined(settings, status=1))["NATS/JetStream"]
            assert row["found"].startswith(found)
            assert row["remedy"].startswith("set BRIDGE_NATS_MAX_BYTES")
            async with Bridge({f"BRIDGE_{name.upper()}": value for name, value in settings.items()}) as bridge:
                assert await bridge.exited() == 1
                assert "set BRIDGE_NATS_MAX_BYTES to what the account allows for each replica" in bridge.log()
        await all_works(sound_redis, {**login, **BOUND})
        async with jetstream(server, "a:hunter2@") as there:
            assert (await there.stream_info("EXPIRY")).config.max_bytes == 5_000_000


# Subjects.


async def test_a_stream_that_transforms_subjects_is_verified_by_what_it_has_stored(
    sound_redis: RedisServer, nats_server: NatsServer
) -> None:
    transform = SubjectTransform(src="expired.>", dest="stored.>")
    async with jetstream(nats_server) as there:
        await there.add_stream(
            StreamConfig(
                name="EXPIRY", subjects=["expired.>"], duplicate_window=600, max_age=86_400, subject_transform=transform
            )
        )
    settings = {"nats_url": nats_server.url}
    row = (await examined({"redis_url": sound_redis.url, **settings}))["NATS/subjects"]
    assert "stores expired.> as stored.>" in row["found"]
    await all_works(sound_redis, settings)


# What was asked for.


async def test_an_existing_stream_that_is_not_what_the_settings_ask_for_is_said(
    sound_redis: RedisServer, nats_server: NatsServer
) -> None:
    async with jetstream(nats_server) as there:
        await there.add_stream(StreamConfig(name="EXPIRY", subjects=["expired.>"], duplicate_window=600))
    settings = {"redis_url": sound_redis.url, "nats_url": nats_server.url, "nats_retention_hours": "48", **BOUND}
    rows = await examined(settings)
    assert levels(rows) == {"NATS/limits": "warn", "NATS/provision": "warn"}
    assert rows["NATS/provision"]["remedy"] == "nats stream edit EXPIRY --max-age=2d --max-bytes=5000000"
