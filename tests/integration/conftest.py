"""Fixtures of the tests of the whole."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from redis.asyncio import Redis

from tests.harness import LAZY, Inside, user_of
from tests.integration.doctor import SOUND
from tests.integration.ground import Accounts, Ground
from tests.proxy import Protocol, Proxy
from tests.servers import NatsServer, RedisServer, require


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis in which nothing is to be fixed."""
    require(RedisServer)
    with RedisServer(SOUND) as server:
        yield server.url


@pytest.fixture(scope="module")
def accounts() -> Iterator[Accounts]:
    """A NATS server that gives each test an account of its own."""
    require(NatsServer)
    with Accounts() as server:
        yield server


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Servers in which something is wrong."""
    with ExitStack() as stack:
        yield Ground(request, stack)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about how long the bridge takes to try again, or to touch what it was not told of."""
    monkeypatch.setattr("bridge.backoff.Backoff.next", lambda _: 0.02)
    monkeypatch.setattr("bridge.redis.protocol.schedule.HEARTBEAT", 0.05)


@pytest.fixture
def server(redis_kind: type[RedisServer]) -> Iterator[RedisServer]:
    """A server that may be told not to expire by itself."""
    with redis_kind(LAZY) as server:
        yield server


@pytest.fixture
async def user(server: RedisServer) -> AsyncIterator[Redis]:
    """The user, straight to the server."""
    async with user_of(server) as user:
        yield user


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    """What the bridge connects to."""
    async with Proxy(server.port, Protocol.RESP) as proxy:
        yield proxy


@pytest.fixture
async def bridge(proxy: Proxy, user: Redis) -> AsyncIterator[Inside]:
    """A bridge that has closed its first gap."""
    async with Inside(proxy.port) as bridge:
        await bridge.reconciled()
        yield bridge
