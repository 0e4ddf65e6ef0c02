"""Fixtures of the tests of the whole."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.doctor import SOUND
from tests.integration.ground import Accounts, Ground
from tests.support.harness.fixtures import bridge, limits, proxy, server, user
from tests.support.servers import NatsServer, RedisServer, require

__all__ = ["bridge", "limits", "proxy", "server", "user"]


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
