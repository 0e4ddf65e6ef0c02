"""`expiry-bridge check`: each fault that is planted is found, and named with what really fixes it."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import nats
import pytest
from nats.js.api import StreamConfig
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import NoPermissionError

from bridge.commands.embedded import free_port
from bridge.errors import NotConnected, Refused
from bridge.redis.admin import inspector as inspection
from bridge.redis.admin.acl import acl_rule
from bridge.redis.admin.inspector import Inspector
from bridge.redis.ledger import assembly
from bridge.redis.wire.server import Server
from bridge.settings import Settings
from tests.integration.doctor import SECRET, SOUND, examine, levels
from tests.support.servers import Bridge, NatsServer, RedisServer, wait_until


@pytest.fixture
def sound_redis(redis_kind: type[RedisServer]) -> Iterator[RedisServer]:
    """A Redis, and a Valkey, in which nothing is to be fixed."""
    with redis_kind(SOUND) as server:
        yield server


@pytest.fixture
def admin(sound_redis: RedisServer) -> Iterator[Redis]:
    """A client of it that may do everything."""
    with Redis(port=sound_redis.port, decode_responses=True) as client:
        yield client


async def make_stream(server: NatsServer) -> None:
    """A stream as the bridge itself would make it."""
    client = await nats.connect(server.url)
    try:
        config = StreamConfig(name="EXPIRY", subjects=["expired.>"], duplicate_window=600.0, max_age=86_400.0)
        await client.jetstream().add_stream(config)
    finally:
        await client.close()


def run(admin: Redis, *command: str) -> None:
    """Run a command as a remedy says it."""
    admin.execute_command(*command)  # type: ignore[no-untyped-call]


@contextmanager
def user(admin: Redis, *rules: str) -> Iterator[dict[str, str]]:
    """The settings with which to log in as a user of such rules."""
    run(admin, "ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", *rules)
    yield {"redis_username": "limited", "redis_password": SECRET}


def test_a_healthy_deployment_passes(sound_redis: RedisServer, nats_server: NatsServer) -> None:
    asyncio.run(make_stream(nats_server))

    rows = examine(0, redis_url=sound_redis.url, nats_url=nats_server.url)

    assert levels(rows) == {}
    assert {name.partition("/")[0] for name in rows} == {"Redis", "NATS"}
    assert len(rows) == 22


async def test_it_tells_people_in_plain_lines(redis_server: RedisServer) -> None:
    settings = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": f"nats://127.0.0.1:{free_port()}"}
    with Bridge(settings, "check") as command:
        assert await command.exited() == 1
        lines = command.output().splitlines()
        assert command.log() == "\n".join(lines[-40:])  # nothing on standard error

    assert lines[0] == "Redis"
    assert "NATS" in lines
    assert lines[1].split() == [
        "pass",
        "connection",
        f"127.0.0.1:{redis_server.port},",
        "db",
        "0,",
        "as",
        "user",
        "default",
    ]
    assert any(line.strip().startswith("→ start NATS there") for line in lines)
    assert lines[-1] == "1 failure, 2 warnings: fix what failed, then check again."


def test_it_changes_nothing(sound_redis: RedisServer, admin: Redis, nats_server: NatsServer) -> None:
    admin.config_set("notify-keyspace-events", "")
    before = admin.config_get("*"), admin.acl_list()

    with user(admin, "~*", "&*", "+@all", "-acl") as login:  # has to try the commands, for it may not ask about them
        examine(0, redis_url=sound_redis.url, nats_url=nats_server.url, **login)
        admin.acl_deluser("limited")
    examine(0, redis_url=sound_redis.url, nats_url=nats_server.url)

    assert (admin.config_get("*"), admin.acl_list()) == before
    assert admin.dbsize() == 0
    assert admin.info("memory")["number_of_cached_scripts"] == 0

    async def streams() -> int:
        client = await nats.connect(nats_server.url)
        try:
            return (await client.jetstream().account_info()).streams
        finally:
            await client.close()

    assert asyncio.run(streams()) == 0


@pytest.mark.parametrize("flags", ["", "Kx", "Exg"])
def test_missing_flags_fail_in_verify_mode_and_the_remedy_fixes_them(
    sound_redis: RedisServer, admin: Redis, flags: str
) -> None:
    settings = {"redis_url": sound_redis.url, "sink": "stdout", "redis_notifications": "verify"}
    admin.config_set("notify-keyspace-events", flags)

    rows = examine(1, **settings)

    assert levels(rows) == {"Redis/notifications": "fail"}
    assert "BRIDGE_REDIS_NOTIFICATIONS=verify" in rows["Redis/notifications"]["found"]
    run(admin, *rows["Redis/notifications"]["remedy"].partition(",")[0].split())
    assert levels(examine(0, **settings)) == {}
    assert set(flags) <= set(str(admin.config_get("notify-keyspace-events")["notify-keyspace-events"]))


def test_missing_flags_are_a_warning_where_the_bridge_adds_them(redis_server: RedisServer) -> None:
    rows = examine(0, redis_url=redis_server.url, sink="stdout")

    assert rows["Redis/notifications"]["level"] == "warn"
    assert "the bridge adds it" in rows["Redis/notifications"]["found"]


def test_missing_flags_fail_where_the_bridge_may_not_add_them(sound_redis: RedisServer, admin: Redis) -> None:
    admin.config_set("notify-keyspace-events", "")
    with user(admin, "~*", "&*", "+@all", "-config|set") as login:
        rows = examine(1, redis_url=sound_redis.url, sink="stdout", **login)

    assert levels(rows) == {"Redis/notifications": "fail"}
    assert "CONFIG SET is refused" in rows["Redis/notifications"]["found"]


@pytest.mark.parametrize("may_ask", [True, False], ids=["dry-run", "tried"])
@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        ("-zadd", "zadd"),
        ("-xinfo", "xinfo|stream"),
        ("-subscribe", "subscribe"),
        ("resetchannels", "subscribe"),
        ("-pexpiretime", "pexpiretime *"),
        ("resetkeys", "evalsha"),
    ],
)
def test_a_missing_permission_is_named_and_the_rule_shown_is_enough(
    sound_redis: RedisServer, admin: Redis, *, may_ask: bool, lacks: str, named: str
) -> None:
    asks = ["+acl"] if may_ask else ["-acl"]
    with user(admin, "~*", "&*", "+@all", *asks, lacks) as login:
        settings = {"redis_url": sound_redis.url, "sink": "stdout", **login}

        rows = examine(1, **settings)

        assert levels(rows) == {"Redis/permissions": "fail"}
        assert named in rows["Redis/permissions"]["found"]
        run(admin, *rows["Redis/permissions"]["remedy"].split())
        assert levels(examine(0, **settings)) == {}


def test_the_rule_holds_every_command_of_the_scripts() -> None:
    """If this fails, a script has got a new command: enter it in `bridge.redis.admin.acl.needs`."""
    scripts = "".join(assembly.script(name) for name in assembly.names())
    words = re.findall(r"[({]'([A-Z]+)'(?:, '(STREAM)')?", scripts)
    commands = {f"+{'|'.join(filter(None, command)).lower()}" for command in words} - {"+pubsub", "+memory", "+ok"}
    commands |= {"+publish", "+spublish", "+pubsub|numsub", "+pubsub|shardnumsub"}  # which ones depends on the server

    assert len(commands) > 20
    single, cluster = {"+publish", "+pubsub|numsub"}, {"+spublish", "+pubsub|shardnumsub"}
    for url, others in (("redis://h", cluster), ("redis+cluster://h", single)):
        rule = acl_rule(Settings(redis_url=SecretStr(url), values=["v:*"], fields=["f:*"]))
        assert commands - set(re.split("[ ()]", rule)) == others


async def test_a_user_with_nothing_but_the_rule_shown_can_run_the_bridge(
    sound_redis: RedisServer, admin: Redis, nats_server: NatsServer
) -> None:
    admin.config_set("notify-keyspace-events", "")
    with user(admin, "+time", "+client|setname", "+select") as login:
        url = f"{sound_redis.url}/5"
        settings = {
            "redis_url": url,
            "nats_url": nats_server.url,
            "namespace": "odd *[",
            "keys": "share:*,a b",
            **login,
        }
        rows = await asyncio.to_thread(lambda: examine(1, **settings))
        run(admin, *rows["Redis/permissions"]["remedy"].replace('"', "").replace("\\\\", "\\").split(" "))
        rows = await asyncio.to_thread(lambda: examine(0, **settings))
        assert rows["Redis/permissions"]["level"] == "pass"

        variables = {f"BRIDGE_{name.upper()}": value for name, value in settings.items()}
        async with Bridge(variables) as bridge:
            await bridge.ready()
            admin.select(5)
            admin.set("share:1", "", px=50)
            await wait_until(lambda: metric(bridge, "bridge_published_messages_total 1.0"), bridge.log)
        admin.set("share:2", "private")
        with Redis(port=sound_redis.port, username=login["redis_username"], password=SECRET) as client:
            client.select(5)
            for words in ("GET share:2", "HGETALL share:2", "XRANGE share:2 - +", "DEL share:2"):
                with pytest.raises(NoPermissionError):
                    run(client, *words.split())
            assert client.exists("share:2") == 1
        for command in (["status"], ["dead", "list"], ["dead", "retry", "--all"]):
            with Bridge(variables, *command) as ended:
                assert await ended.exited() == 0, ended.log()


async def metric(bridge: Bridge, line: str) -> bool:
    """Whether the bridge shows this metric."""
    return line in (await bridge.get("/metrics"))[1]


def test_a_user_that_may_not_even_connect_is_shown_the_rule(sound_redis: RedisServer, admin: Redis) -> None:
    with user(admin, "+ping") as login:
        rows = examine(1, redis_url=sound_redis.url, sink="stdout", **login)

    assert levels(rows) == {"Redis/connection": "fail"}
    assert rows["Redis/connection"]["remedy"].startswith("ACL SETUSER limited (~{expiry-bridge:* &__keyevent@0__:* ")


def test_what_may_not_be_read_is_a_warning(sound_redis: RedisServer, admin: Redis) -> None:
    with user(admin, "~*", "&*", "+@all", "-config", "-info") as login:
        rows = examine(1, redis_url=sound_redis.url, sink="stdout", **login)

    unread = ("version", "role", "notifications", "eviction", "persistence", "subscriber buffer")
    assert levels(rows) == {f"Redis/{name}": "warn" for name in unread} | {"Redis/permissions": "fail"}
    assert all("cannot be read" in rows[f"Redis/{name}"]["found"] for name in unread)
    assert "info" in rows["Redis/permissions"]["found"]


def test_without_config_the_policy_is_read_from_info(sound_redis: RedisServer, admin: Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lfu")
    with user(admin, "~*", "&*", "+@all", "-config") as login:
        rows = examine(1, redis_url=sound_redis.url, sink="stdout", **login)

    assert rows["Redis/eviction"]["level"] == "fail"


@pytest.mark.parametrize(
    ("policy", "level"), [("allkeys-random", "fail"), ("volatile-ttl", "pass"), ("noeviction", "pass")]
)
def test_an_eviction_policy_that_can_take_the_ledger_fails(
    sound_redis: RedisServer, admin: Redis, policy: str, level: str
) -> None:
    admin.config_set("maxmemory-policy", policy)

    rows = examine(int(level == "fail"), redis_url=sound_redis.url, sink="stdout")

    assert rows["Redis/eviction"]["level"] == level
    assert rows["Redis/eviction"]["found"].startswith(f"maxmemory-policy {policy}")


def test_snapshots_are_no_append_only_file(sound_redis: RedisServer, admin: Redis) -> None:
    admin.config_set("appendonly", "no")
    admin.config_set("save", "900 1")

    rows = examine(0, redis_url=sound_redis.url, sink="stdout")

    assert levels(rows) == {"Redis/persistence": "warn"}
    assert rows["Redis/persistence"]["found"].startswith("snapshots only")


def test_where_config_is_refused_a_canary_finds_that_expirations_are_mute(
    sound_redis: RedisServer, admin: Redis
) -> None:
    admin.config_set("notify-keyspace-events", "Eg")
    with user(admin, "~*", "&*", "+@all", "-config") as login:
        rows = examine(1, redis_url=sound_redis.url, sink="stdout", **login)
        assert rows["Redis/canary"]["level"] == "fail"
        assert "no notification came" in rows["Redis/canary"]["found"]
        assert "notify-keyspace-events to Egxe" in rows["Redis/canary"]["remedy"]
        admin.config_set("notify-keyspace-events", "Egxe")
        rows = examine(0, redis_url=sound_redis.url, sink="stdout", **login)
        assert rows["Redis/canary"]["level"] == "pass"
    assert admin.keys() == []


def test_where_flags_are_known_to_be_missing_no_canary_is_needed(sound_redis: RedisServer, admin: Redis) -> None:
    admin.config_set("notify-keyspace-events", "Eg")
    assert "Redis/canary" not in examine(0, redis_url=sound_redis.url, sink="stdout")


@pytest.mark.parametrize(("ours", "where"), [(10.0, "behind"), (-10.0, "ahead of")])
def test_a_clock_that_differs_is_a_harmless_warning(
    sound_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    ours: float,
    where: str,
) -> None:
    monkeypatch.setattr(inspection, "time", SimpleNamespace(time=lambda: time.time() + ours))

    rows = examine(0, redis_url=sound_redis.url, sink="stdout")

    assert levels(rows) == {"Redis/clock": "warn"}
    assert f"{where} this machine's: harmless" in rows["Redis/clock"]["found"]


def test_a_version_that_is_too_old_fails(sound_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def old(_: Inspector) -> Server:
        return Server("Redis", "6.2.14", "master", "")

    monkeypatch.setattr(Inspector, "server", old)

    rows = examine(1, redis_url=sound_redis.url, sink="stdout")

    assert levels(rows) == {"Redis/version": "fail"}
    assert "upgrade" in rows["Redis/version"]["remedy"]


@pytest.mark.parametrize(
    ("error", "level"), [(NotConnected("Redis at here: gone"), "fail"), (Refused("Redis at here answers: no"), "warn")]
)
def test_a_check_that_gets_no_answer_does_not_hide_the_others(
    sound_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception, level: str
) -> None:
    async def none(_: Inspector) -> str:
        raise error

    monkeypatch.setattr(Inspector, "flags", none)

    rows = examine(int(level == "fail"), redis_url=sound_redis.url, sink="stdout")

    assert levels(rows) == {"Redis/notifications": level}
    assert "Redis at here" in rows["Redis/notifications"]["found"]
    assert "Redis/subscriber buffer" in rows
