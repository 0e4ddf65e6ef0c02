"""Fixtures of the tests of the whole."""

from collections.abc import Iterator

import pytest

from tests.integration.doctor import SOUND
from tests.servers import RedisServer, require


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis in which nothing is to be mended."""
    require(RedisServer)
    with RedisServer(SOUND) as server:
        yield server.url
