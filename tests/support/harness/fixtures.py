"""Fixtures of a bridge on one server, for the `conftest.py` of each room that wants them."""

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from bridge.limits import Limits
from tests.support.harness.inside import Inside
from tests.support.harness.user import LAZY
from tests.support.limits import QUICK
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.commands import user_of
from tests.support.servers import RedisServer


@pytest.fixture
def limits() -> Limits:
    """Those of `bridge`."""
    return QUICK


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
async def bridge(proxy: Proxy, user: Redis, limits: Limits) -> AsyncIterator[Inside]:
    """A bridge that has closed its first gap."""
    async with Inside(proxy.port, limits=limits) as bridge:
        await bridge.reconciled()
        yield bridge
