"""The two kinds of Redis, and a test on both of them side by side."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.servers import RedisServer, ValkeyServer

KINDS: tuple[type[RedisServer], ...] = (RedisServer, ValkeyServer)
EACH_KIND = [pytest.param(RedisServer, id="redis7"), pytest.param(ValkeyServer, id="valkey9")]
"""For the parameter of a fixture whose server several tests share; `redis_kind` is for tests that start their own."""


async def on_both_kinds(play: Callable[[type[RedisServer]], Awaitable[None]]) -> None:
    """Play it on Redis and on Valkey, side by side: most of the time, a test with real servers waits."""

    async def told(kind: type[RedisServer]) -> None:
        try:
            await play(kind)
        except Exception as error:
            error.add_note(f"with {kind.distribution}")
            raise

    async with asyncio.TaskGroup() as side_by_side:
        for kind in KINDS:
            side_by_side.create_task(told(kind))
