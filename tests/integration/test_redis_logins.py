"""Logins of a credentials provider: used for commands and for notifications, and renewed before they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.commands.check.redis.server import check_redis
from bridge.errors import BridgeError, NotConnected
from bridge.limits import WireLimits
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import subscribe
from bridge.settings import Settings
from bridge.sinks.redis import RedisSink
from tests.support.brokers.caller import Caller
from tests.support.brokers.rigs import Observed, messages
from tests.support.deployments.telemetry import events
from tests.support.harness.inside import Inside
from tests.support.limits import QUICK
from tests.support.redis.commands import set_for
from tests.support.redis.rotation import FROM_FILE, NAME, PROVIDER, SECRET, Users
from tests.support.servers import Bridge, RedisServer, require, wait_until

SOON = WireLimits(login=0.2, login_look=0.05, ping=0.05)


@asynccontextmanager
async def guarded(kind: type[RedisServer], **directives: str) -> AsyncIterator[tuple[RedisServer, Redis, Users]]:
    """A server, and a client with all rights, whom the provider knows nothing of."""
    require(kind)
    with kind({"notify-keyspace-events": "Egxe", **directives}) as server:
        async with Redis(port=server.port, protocol=2, decode_responses=True) as owner:
            users = Users(owner)
            PROVIDER.gives = await users.add()
            yield server, owner, users


def endpoint_of(server: RedisServer) -> Endpoint:
    settings = Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", redis_credentials_provider=NAME)
    return Endpoint.of(settings, SOON)


async def command(endpoint: Endpoint) -> None:
    client = endpoint.client()
    try:
        async with conversation(endpoint):
            await client.ping()
    finally:
        await client.aclose()


async def own_command(endpoint: Endpoint) -> None:
    with closing(Commands(endpoint)) as commands:
        await commands.ask(b"PING")


async def subscription(endpoint: Endpoint) -> None:
    session = await subscribe(endpoint, [b"any"], Inbox(endpoint.limits), lambda: None)
    session.end("it was only a try")


@pytest.mark.both_kinds
async def test_logins_that_are_renewed_before_they_end_cost_nothing(redis_kind: type[RedisServer]) -> None:
    async with guarded(redis_kind) as (server, owner, users):
        limits = replace(QUICK, wire=replace(QUICK.wire, login_look=0.05, ping=0.05))
        async with Inside(server.port, limits=limits, redis_credentials_provider=NAME) as bridge:
            await bridge.reconciled()
            for round_ in range(2):
                PROVIDER.gives = await users.add()
                await wait_until(users.are_renewed)
                await users.end_former()
                for number in range(20):
                    await set_for(owner, f"share:{round_}:{number}".encode(), 20)
                await bridge.told(20 * (round_ + 1))
            assert bridge.telemetry.endings == []
            assert bridge.telemetry.closed == 1
            assert len(bridge.published) == 40


@pytest.mark.parametrize("attempt", [command, own_command, subscription])
async def test_a_login_that_is_refused_fails_or_never_comes_is_said_and_tried_again(attempt: object) -> None:
    assert callable(attempt)
    async with guarded(RedisServer) as (server, _, users):
        endpoint = endpoint_of(server)

        async def fails(gives: object, why: str) -> None:
            PROVIDER.gives = gives
            with pytest.raises(BridgeError, match=why) as caught:
                await attempt(endpoint)
            assert isinstance(caught.value, NotConnected), "it is tried again"
            assert SECRET not in str(caught.value)

        user, _ = users.login
        await fails(
            (user, f"{SECRET}-wrong"), r"refuses the login \(.*WRONGPASS|invalid.*: check what BRIDGE_REDIS_CRED"
        )
        await fails(
            OSError(110, SECRET), r"BRIDGE_REDIS_CREDENTIALS_PROVIDER gives no login \(TimeoutError: .* timed out\)"
        )
        await fails(RuntimeError(SECRET), r"gives no login \(RuntimeError\)")
        for rubbish in (
            None,
            SECRET,
            (),
            ("", SECRET, ""),
            (user, ""),
            (user, SECRET.encode()),
            (user, "\udcff"),
            ("\ud800", SECRET),
        ):
            await fails(rubbish, "gives no login .it must be user and password")
        PROVIDER.answers.clear()
        await fails(users.login, r"gives no login \(no answer within 0\.2 s\)")
        PROVIDER.answers.set()
        await attempt(endpoint)
        assert endpoint.user == user


async def test_where_a_session_cannot_be_logged_in_anew_another_one_has_to_follow() -> None:
    async with guarded(RedisServer, **{"rename-command": 'HELLO ""'}) as (server, _, users):
        endpoint = endpoint_of(server).bound()
        assert endpoint.binding is not None
        session = await subscribe(endpoint, [b"any"], Inbox(endpoint.limits), lambda: None)
        watch = asyncio.create_task(session.watch())
        assert not session.login.renewable
        assert endpoint.binding.ends_at is None
        PROVIDER.gives = await users.add()
        await wait_until(lambda: endpoint.binding is not None and endpoint.binding.ends_at is not None)
        assert session.ended is None
        session.end("enough")
        await watch
        [row] = [row for row in await check_redis(endpoint.settings) if row.check == "login renewal"]
        assert row.finding.level == "warn"
        assert row.finding.remedy.startswith("allow HELLO 3")


async def test_where_a_session_cannot_be_logged_in_anew_another_one_takes_over_without_a_gap() -> None:
    async with guarded(RedisServer, **{"rename-command": 'HELLO ""'}) as (server, owner, users):
        limits = replace(QUICK, wire=replace(QUICK.wire, login_look=0.05, ping=0.05))
        async with Inside(server.port, limits=limits, redis_credentials_provider=NAME) as bridge:
            await bridge.reconciled()
            PROVIDER.gives = await users.add()
            await wait_until(users.are_renewed, lambda: str(bridge.telemetry.endings))
            await users.end_former()
            for number in range(20):
                await set_for(owner, f"share:{number}".encode(), 20)
            await bridge.told(20)
            assert bridge.telemetry.closed == 1
            assert len(bridge.published) == 20


async def test_the_sinks_own_server_has_a_login_of_its_own() -> None:
    async with guarded(RedisServer) as (server, _, users):

        async def appended_as(user: str, **settings: str) -> None:
            made = Settings.model_validate({"sink_redis_url": server.url, **settings})
            sink = Caller(RedisSink(made, 0, SystemClock(), SOON, Observed()), one_shard=True)
            try:
                await sink.open()
                await sink.publish(messages(1))
                assert await users.connections(user, kind="normal")
            finally:
                await sink.close()

        await appended_as(users.login[0], sink_redis_credentials_provider=NAME)
        PROVIDER.gives = RuntimeError(SECRET)
        await appended_as("default", redis_credentials_provider=NAME)  # what the source has is not shown to it
        with pytest.raises(NotConnected, match=r"BRIDGE_SINK_REDIS_CREDENTIALS_PROVIDER gives no login \(RuntimeError"):
            await appended_as("nobody", sink_redis_credentials_provider=NAME)


async def test_check_says_whom_the_provider_logs_in_and_that_it_can_be_renewed() -> None:
    async with guarded(RedisServer) as (server, _, users):
        found = {row.check: row.finding for row in await check_redis(endpoint_of(server).settings)}
        assert found["connection"].found.endswith(f"as user {users.login[0]}")
        assert found["login renewal"].level == "pass"
        PROVIDER.gives = RuntimeError(SECRET)
        [row] = await check_redis(endpoint_of(server).settings)
        assert row.finding.level == "fail"
        assert "gives no login (RuntimeError)" in row.finding.found


async def test_a_login_that_is_refused_on_a_session_leaves_the_former_one_until_there_is_a_good_one() -> None:
    async with guarded(RedisServer) as (server, owner, users):
        endpoint = endpoint_of(server)
        client = endpoint.client()
        await client.ping()
        session = await subscribe(endpoint, [b"any"], Inbox(endpoint.limits), lambda: None)
        watch = asyncio.create_task(session.watch())
        try:
            user, _ = users.login
            PROVIDER.gives = (user, f"{SECRET}-wrong")

            async def was_refused() -> bool:
                await client.ping()
                return len(await owner.acl_log()) > 0 and int(str((await owner.acl_log())[0]["count"])) > 1

            await wait_until(was_refused)
            PROVIDER.gives = await users.add()

            async def all_have_it() -> bool:
                await client.ping()
                return len(await users.connections(users.login[0])) == 2

            await wait_until(all_have_it)
            assert session.ended is None
        finally:
            session.end("enough")
            await watch
            await client.aclose()


async def test_a_bridge_whose_logins_change_every_second_delivers_all_and_says_why_it_cannot(tmp_path: Path) -> None:
    file = tmp_path / "login"
    async with guarded(RedisServer) as (server, owner, users):
        user, password = users.login
        file.write_text(f"{user} {password}-wrong")
        settings = {
            "BRIDGE_REDIS_URL": server.url,
            "BRIDGE_REDIS_CREDENTIALS_PROVIDER": FROM_FILE,
            "BRIDGE_SINK": "redis",
            "BRIDGE_LOG_LEVEL": "debug",
            "LOGIN_FILE": str(file),
        }
        async with Bridge(
            settings, limits=replace(QUICK, wire=replace(QUICK.wire, login_look=0.1, ping=0.1))
        ) as bridge:
            await wait_until(lambda: bool(events(bridge, "redis.unreached")), bridge.log)
            assert "refuses the login" in (await bridge.get("/readyz"))[1]
            file.write_text(" ".join(users.login))
            await bridge.ready()
            for number in range(2):
                file.write_text(" ".join(await users.add()))
                await owner.set(f"share:{number}", "", px=20)
                await wait_until(partial(has_arrived, owner, number + 1), bridge.log)
                await wait_until(users.are_renewed, bridge.log)
                await users.end_former()
            assert not events(bridge, "epoch.ended")
            assert SECRET not in bridge.log(1_000_000)
        gone = {**settings, "BRIDGE_REDIS_CREDENTIALS_PROVIDER": "no_such_module:provider"}
        async with Bridge(gone) as bridge:
            assert await bridge.exited() == 2
            assert "BRIDGE_REDIS_CREDENTIALS_PROVIDER: no_such_module:provider cannot be used" in bridge.log()


async def has_arrived(owner: Redis, count: int) -> bool:
    """Whether there are that many expirations in the stream, besides the record of the first gap."""
    return await owner.xlen("expired") > count
