"""Servers that take not every command, or not every client: what is not needed must not be needed."""

from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from bridge.errors import NotConnected
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import subscribe
from bridge.settings import Settings
from tests.support.deployments.arrivals import all_of, arrivals, told
from tests.support.deployments.world import bridged
from tests.support.redis.commands import run, set_known, user_of
from tests.support.servers import NatsServer, RedisServer

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]


@pytest.mark.parametrize("by", ["rename-command", "acl"])
async def test_a_server_that_takes_no_names_of_clients_will_do(
    redis_kind: type[RedisServer], nats_server: NatsServer, by: str
) -> None:
    config = {"rename-command": 'CLIENT ""'} if by == "rename-command" else {}
    with redis_kind(config) as server:
        async with user_of(server) as redis:
            if by == "acl":
                await run(redis, "ACL", "SETUSER", "default", "-client|setname")
            with bridged(server, nats_server) as bridge:
                await bridge.ready()
                async with arrivals(nats_server) as arrived:
                    deadline = await set_known(redis, b"a", 300)
                    await all_of(arrived, {b"a"})
    assert told(arrived, [b"a"]) == {b"a": [deadline]}


async def test_a_command_that_is_needed_and_renamed_away_is_named_with_the_remedy(
    redis_kind: type[RedisServer], nats_server: NatsServer
) -> None:
    with redis_kind({"rename-command": 'EVALSHA ""'}) as server, bridged(server, nats_server) as bridge:
        assert await bridge.exited() == 1
        (line,) = [line for line in bridge.log().splitlines() if "bridge.refused" in line]
    assert "EVALSHA" in line
    assert "undo its rename-command, or ask the provider to allow it" in line


async def test_a_server_that_is_full_of_clients_is_not_taken_for_one_with_tls(redis_kind: type[RedisServer]) -> None:
    with redis_kind({"maxclients": "2"}) as server:
        endpoint = Endpoint.of(Settings(redis_url=SecretStr(server.url)))
        async with AsyncExitStack() as stack:
            for _ in range(2):
                redis = await stack.enter_async_context(user_of(server))
                await redis.ping()
            for _ in range(20):
                for attempt in (_command(endpoint), _subscription(endpoint)):
                    with pytest.raises(NotConnected) as caught:
                        await attempt
                    assert "maxclients" in str(caught.value), caught.value


async def _command(endpoint: Endpoint) -> None:
    redis = endpoint.client()
    try:
        async with conversation(endpoint):
            await redis.ping()
    finally:
        await redis.aclose()


async def _subscription(endpoint: Endpoint) -> None:
    await subscribe(endpoint, [b"__keyevent@0__:expired"], Inbox(endpoint.limits), lambda: None)
