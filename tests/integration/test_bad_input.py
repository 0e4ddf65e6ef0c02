"""What somebody must fix ends the bridge with one line that names it; what passes by itself is waited for."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress

import nats
import pytest
from redis.asyncio import Redis

from bridge.commands.embedded import free_port
from tests.support.deployments.arrivals import START, all_of, arrivals, told
from tests.support.deployments.world import settings_for
from tests.support.kinds import EACH_KIND
from tests.support.proxy import Framer, Protocol, resp_arguments
from tests.support.redis.commands import run, set_for, set_known
from tests.support.servers import Bridge, NatsServer, RedisServer, require, wait_until

pytestmark = pytest.mark.unmeasured

PASSWORD = "correct-Horse"
WRONG = "wrong-Horse"
SECRETS = (PASSWORD, WRONG)


@pytest.fixture(scope="module", params=EACH_KIND)
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis that asks for a password. Tests add users, and set the notification flags that they rely on."""
    kind: type[RedisServer] = request.param
    require(kind)
    with kind({"requirepass": PASSWORD}) as server:
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[NatsServer]:
    """A NATS server that serves everybody."""
    require(NatsServer)
    with NatsServer() as server:
        yield server


@asynccontextmanager
async def owner(server: RedisServer) -> AsyncIterator[Redis]:
    """A client that may do everything."""
    async with Redis(port=server.port, password=PASSWORD) as redis:
        yield redis


async def user_with(server: RedisServer, *rules: str) -> dict[str, str]:
    """The settings of a bridge whose Redis user may do everything, but for `rules`."""
    async with owner(server) as redis:
        await run(redis, "ACL", "SETUSER", "bridge", "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all", *rules)
    return {"redis_username": "bridge", "redis_password": PASSWORD}


async def set_flags(server: RedisServer, flags: str) -> None:
    """Let the server notify just these."""
    async with owner(server) as redis:
        await run(redis, "CONFIG", "SET", "notify-keyspace-events", flags)


def said(bridge: Bridge) -> list[str]:
    """All that it wrote, but for its log."""
    return [line for line in bridge.log(100_000).splitlines() if not line.startswith("{")]


def no_secret_in(bridge: Bridge) -> None:
    written = bridge.log(100_000)
    assert [secret for secret in SECRETS if secret in written] == []


async def refusal(settings: Mapping[str, str], status: int = 1) -> str:
    """What the bridge refuses to work with, which has to be this one problem, and in its log."""
    async with Bridge(settings) as bridge:

        def has_decided() -> bool:
            return not bridge.running or all(event in bridge.log() for event in ("gap.closed", "sink.connected"))

        await wait_until(has_decided, bridge.log)
        assert bridge.returncode == status, bridge.log()
        no_secret_in(bridge)
        assert said(bridge) == []
        log = [json.loads(line) for line in bridge.log(100_000).splitlines()]
        [problem] = [event["problem"] for event in log if event["event"] == "bridge.refused"]
        return str(problem)


async def reasons(bridge: Bridge) -> dict[str, str]:
    """Why it is not ready; nothing if it is, or if it does not answer yet."""
    try:
        status, body = await bridge.get("/readyz")
    except OSError:
        return {}
    answer = json.loads(body)
    assert (status == 200) == (answer["status"] == "ready")
    found: dict[str, str] = answer.get("reasons", {})
    return found


async def not_ready(bridge: Bridge, condition: str, *words: str) -> None:
    """Return when the bridge says that it is not ready, for a reason with all these words."""
    found: dict[str, str] = {}

    async def has_reason() -> bool:
        found.update(await reasons(bridge))
        return all(word in found.get(condition, "") for word in words)

    await wait_until(has_reason, lambda: f"{words}; reasons are {found}\n{bridge.log()}")
    assert bridge.running


# Redis: who may do what.


@pytest.mark.parametrize(
    "login",
    [
        {},
        {"redis_password": WRONG},
        {"redis_username": "nobody", "redis_password": PASSWORD},
        {"redis_username": "default", "redis_password": WRONG},
    ],
    ids=["none", "wrong password", "wrong user", "wrong password of a user"],
)
async def test_a_login_that_redis_refuses_ends_the_bridge(
    guarded: RedisServer, broker: NatsServer, login: dict[str, str]
) -> None:
    line = await refusal(settings_for(guarded, broker, **login))
    assert f"127.0.0.1:{guarded.port}" in line
    assert "BRIDGE_REDIS_USERNAME" in line
    assert "BRIDGE_REDIS_PASSWORD" in line


async def test_a_wrong_password_in_the_url_is_not_repeated(guarded: RedisServer, broker: NatsServer) -> None:
    url = f"redis://default:{WRONG}%2F@127.0.0.1:{guarded.port}/0"
    line = await refusal(settings_for(guarded, broker, redis_url=url))
    assert "BRIDGE_REDIS_PASSWORD" in line


async def test_a_password_for_a_redis_that_has_none_ends_the_bridge(
    redis_server: RedisServer, broker: NatsServer
) -> None:
    line = await refusal(settings_for(redis_server, broker, redis_password=WRONG))
    assert "BRIDGE_REDIS_PASSWORD" in line


@pytest.mark.parametrize(
    "rule", ["-evalsha", "-pexpiretime", "-zadd", "-xadd", "resetchannels", "-subscribe", "-scan", "-info"]
)
async def test_a_user_who_may_not_do_what_the_bridge_needs_ends_it(
    guarded: RedisServer, broker: NatsServer, rule: str
) -> None:
    async with owner(guarded) as redis:
        await set_for(redis, b"recorded:1", 60_000)  # an empty Redis does not need all of it, yet
    line = await refusal(settings_for(guarded, broker, **await user_with(guarded, rule)))
    assert f"127.0.0.1:{guarded.port}" in line
    assert "ACL" in line


async def test_a_user_who_may_not_write_the_bridges_own_keys_ends_it(guarded: RedisServer, broker: NatsServer) -> None:
    login = await user_with(guarded, "resetkeys", "%R~*")
    assert "ACL" in await refusal(settings_for(guarded, broker, **login))


async def test_a_permission_that_is_taken_away_later_is_a_reason_not_to_be_ready(
    guarded: RedisServer, broker: NatsServer
) -> None:
    login = await user_with(guarded)
    key = f"permission:{type(guarded).__name__}".encode()
    async with (
        Bridge(settings_for(guarded, broker, **login)) as bridge,
        owner(guarded) as redis,
    ):
        await bridge.ready()
        async with arrivals(broker) as arrived:
            await user_with(guarded, "-xadd")
            deadline_ms = await set_known(redis, key, 300)
            await not_ready(bridge, "subscription", "does not permit", "ACL")
            await user_with(guarded)
            await all_of(arrived, {key})
        await bridge.ready()
        assert await bridge.stop() == 0
    assert told(arrived, {key}) == {key: [deadline_ms]}


# Redis: what it is.


@asynccontextmanager
async def redis_that_says(info: str) -> AsyncIterator[int]:
    """A server on the returned port that answers INFO with this, and whatever else with OK."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer(Protocol.RESP)
        try:
            with suppress(ConnectionError):  # the bridge ends as it likes
                while chunk := await reader.read(1 << 16):
                    for frame in framer.feed(chunk):
                        is_info = resp_arguments(frame)[0] == b"INFO"
                        writer.write(b"$%d\r\n%b\r\n" % (len(info), info.encode()) if is_info else b"+OK\r\n")
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("info", "name", "needed"),
    [
        ("redis_version:6.2.14\r\nrole:master\r\n", "Redis 6.2.14", "Redis 7.0"),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.1.0\r\nrole:master\r\n", "Valkey 7.1.0", "7.2"),
    ],
    ids=["Redis 6", "Valkey 7.1"],
)
async def test_a_server_that_is_too_old_ends_the_bridge(broker: NatsServer, info: str, name: str, needed: str) -> None:
    async with redis_that_says(info) as port:
        settings = {"BRIDGE_REDIS_URL": f"redis://127.0.0.1:{port}", "BRIDGE_NATS_URL": broker.url}
        line = await refusal(settings)
    assert name in line
    assert needed in line


async def test_a_replica_ends_the_bridge(guarded: RedisServer, broker: NatsServer) -> None:
    source = {"replicaof": f"127.0.0.1 {guarded.port}", "masterauth": PASSWORD}
    with type(guarded)(source) as replica:
        line = await refusal(settings_for(replica, broker))
    assert f"127.0.0.1:{replica.port} is a replica" in line
    assert "BRIDGE_REDIS_URL" in line


# Redis: its notifications.


@pytest.mark.parametrize(
    ("flags", "missing", "remedy"),
    [("", "Egxe", "Egxe"), ("Kx", "Ege", "xKEge"), ("Ex", "ge", "xEge"), ("AK", "E", "AKE")],
)
async def test_flags_that_are_missing_and_may_only_be_verified_end_the_bridge(
    guarded: RedisServer, broker: NatsServer, flags: str, missing: str, remedy: str
) -> None:
    await set_flags(guarded, flags)
    line = await refusal(
        settings_for(guarded, broker, redis_password=PASSWORD, redis_notifications="verify"),
    )
    assert f"lacks {missing} " in line
    assert f"set it to '{remedy}'" in line
    assert "notify-keyspace-events" in line
    assert "BRIDGE_REDIS_NOTIFICATIONS=verify" in line
    async with owner(guarded) as redis:
        found = await run(redis, "CONFIG", "GET", "notify-keyspace-events")
    assert set(found[b"notify-keyspace-events"].decode()) == set(flags)


async def test_flags_that_may_not_be_set_end_the_bridge(guarded: RedisServer, broker: NatsServer) -> None:
    await set_flags(guarded, "Ex")
    login = await user_with(guarded, "-config|set")
    line = await refusal(settings_for(guarded, broker, **login))
    assert "lacks ge " in line
    assert "CONFIG SET is refused" in line


async def test_missing_flags_are_added_to_those_that_are_set(guarded: RedisServer, broker: NatsServer) -> None:
    await set_flags(guarded, "K$")
    async with Bridge(settings_for(guarded, broker, redis_password=PASSWORD)) as bridge:
        await bridge.ready()
        no_secret_in(bridge)
        async with owner(guarded) as redis:
            found = await run(redis, "CONFIG", "GET", "notify-keyspace-events")
    assert set(found[b"notify-keyspace-events"].decode()) == set("K$Egxe")


@pytest.mark.parametrize("mode", ["configure", "verify"])
async def test_a_redis_that_refuses_config_serves_if_its_flags_are_set(
    guarded: RedisServer, broker: NatsServer, mode: str
) -> None:
    await set_flags(guarded, "Egxe")
    login = await user_with(guarded, "-config")
    async with Bridge(settings_for(guarded, broker, redis_notifications=mode, **login)) as bridge:
        await bridge.ready()
        async with owner(guarded) as redis, arrivals(broker) as arrived:
            key = f"config:{mode}:{type(guarded).__name__}".encode()
            await set_for(redis, key, 300)
            await all_of(arrived, {key})
        assert said(bridge) == []


async def test_a_redis_that_refuses_config_and_notifies_nothing_is_noticed(
    guarded: RedisServer, broker: NatsServer
) -> None:
    await set_flags(guarded, "")
    login = await user_with(guarded, "-config")
    async with Bridge(settings_for(guarded, broker, **login)) as bridge:
        await not_ready(bridge, "subscription", "notify-keyspace-events", "Egxe")
        await set_flags(guarded, "Egxe")
        await bridge.ready()
        no_secret_in(bridge)


# NATS.


@pytest.mark.parametrize(
    "login",
    [{}, {"nats_user": "bridge", "nats_password": WRONG}, {"nats_user": "nobody", "nats_password": PASSWORD}],
    ids=["none", "wrong password", "wrong user"],
)
async def test_a_login_that_nats_refuses_ends_the_bridge(redis_server: RedisServer, login: dict[str, str]) -> None:
    require(NatsServer)
    with NatsServer(f'authorization {{ user: bridge, password: "{PASSWORD}" }}') as guarded_nats:
        line = await refusal(settings_for(redis_server, guarded_nats, **login))
    assert f"127.0.0.1:{guarded_nats.port}" in line
    assert "BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD" in line


async def test_a_stream_that_binds_other_subjects_ends_the_bridge(
    redis_server: RedisServer, nats_server: NatsServer
) -> None:
    connection = await nats.connect(nats_server.url)
    await connection.jetstream().add_stream(name="EXPIRY", subjects=["other.>"])
    line = await refusal(settings_for(redis_server, nats_server))
    info = await connection.jetstream().stream_info("EXPIRY")
    await connection.close()
    assert "stream EXPIRY binds other.>" in line
    assert "BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM" in line
    assert info.config.subjects == ["other.>"]


async def test_a_stream_that_is_missing_and_may_not_be_created_ends_the_bridge(
    redis_server: RedisServer, nats_server: NatsServer
) -> None:
    line = await refusal(settings_for(redis_server, nats_server, nats_provision="false"))
    assert "stream EXPIRY does not exist" in line
    assert "BRIDGE_NATS_PROVISION" in line


# The rest.


async def test_a_port_that_is_taken_ends_the_bridge(redis_server: RedisServer, broker: NatsServer) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        line = await refusal(settings_for(redis_server, broker, http_port=str(port)))
    assert line.startswith("BRIDGE_HTTP_PORT:")
    assert str(port) in line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("redis_urll", "redis://127.0.0.1", ["BRIDGE_REDIS_URLL", "nearest known is BRIDGE_REDIS_URL"]),
        ("redis_url", f"http://user:{WRONG}@127.0.0.1", ["BRIDGE_REDIS_URL:", "redis://127.0.0.1:6379/0"]),
        ("sink", "rabbitmq", ["BRIDGE_SINK:", "'jetstream', 'kafka', 'redis' or 'stdout'"]),
        ("outbox_limit", "0", ["BRIDGE_OUTBOX_LIMIT:", "greater than or equal to 1"]),
        ("nats_subject", "{key}", ["BRIDGE_NATS_SUBJECT:", "the first token must be fixed"]),
        ("redis_password_file", "missing", ["BRIDGE_REDIS_PASSWORD_FILE:", "must be a file that can be read"]),
    ],
)
async def test_a_setting_that_cannot_work_ends_the_bridge_with_status_2(
    name: str, value: str, words: list[str]
) -> None:
    line = await refusal({f"BRIDGE_{name.upper()}": value}, status=2)
    assert [word for word in words if word not in line] == []


async def test_a_redis_that_comes_later_is_waited_for(redis_kind: type[RedisServer], broker: NatsServer) -> None:
    redis_server = redis_kind()
    async with Bridge(settings_for(redis_server, broker, redis_password=PASSWORD)) as bridge:
        await not_ready(bridge, "subscription", f"127.0.0.1:{redis_server.port}")
        assert (await bridge.get("/livez"))[0] == 200
        redis_server.config["requirepass"] = PASSWORD
        with redis_server:
            await bridge.ready()
            async with owner(redis_server) as redis, arrivals(broker) as arrived:
                key = f"later:{redis_kind.__name__}".encode()
                await set_for(redis, key, 300)
                await all_of(arrived, {key})
            assert await bridge.stop() == 0
        no_secret_in(bridge)


async def test_a_nats_server_that_comes_later_is_waited_for(redis_server: RedisServer) -> None:
    require(NatsServer)
    login = f'authorization {{ user: bridge, password: "{PASSWORD}" }}'
    nats_server = NatsServer(login)
    url = f"nats://bridge:{PASSWORD}@127.0.0.1:{nats_server.port}"
    async with (
        Bridge(settings_for(redis_server, nats_server, nats_url=url)) as bridge,
        Redis(port=redis_server.port) as redis,
    ):
        await not_ready(bridge, "broker", f"127.0.0.1:{nats_server.port}")
        assert (await bridge.get("/livez"))[0] == 200
        await set_for(redis, b"early:1", 100)
        with nats_server:
            await bridge.ready()
            async with arrivals(nats_server, START, url=url) as arrived:
                await all_of(arrived, {b"early:1"})
            assert await bridge.stop() == 0
        no_secret_in(bridge)


async def test_what_ends_a_bridge_at_its_start_is_waited_for_once_it_was_healthy(
    guarded: RedisServer, broker: NatsServer
) -> None:
    await set_flags(guarded, "Egxe")
    login = await user_with(guarded)
    async with Bridge(settings_for(guarded, broker, **login)) as bridge:
        await bridge.ready()
        async with owner(guarded) as redis:
            await run(redis, "ACL", "SETUSER", "bridge", "resetpass", f">{WRONG}")
            await run(redis, "CLIENT", "KILL", "USER", "bridge")
        await not_ready(bridge, "subscription", "BRIDGE_REDIS_PASSWORD")
        await user_with(guarded)
        await bridge.ready()
        assert await bridge.stop() == 0
        no_secret_in(bridge)


async def test_without_any_server_the_bridge_lives_and_says_why_it_is_not_ready() -> None:
    nobody = {
        "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}",
        "BRIDGE_NATS_URL": f"nats://127.0.0.1:{free_port()}",
    }
    async with Bridge(nobody) as bridge:
        await not_ready(bridge, "subscription", "Redis at")
        await not_ready(bridge, "broker", "NATS at")
        assert await bridge.stop() == 0
