"""Rolling restarts: bridges that share the shards are replaced one after the other, while keys expire all the time.

CHAOS_SECONDS makes it go on for so long, with a restart every ten seconds; else there are a few, one after the other.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.tasks import end
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import keys
from tests.support.deployments.sharded import SHARDS, sharded, shared
from tests.support.servers import PATIENCE, RedisServer

SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))
RESTART_SECONDS = 10.0
RESTARTS = 3
"""Where it does not go by time."""
BURST, PAUSE_SECONDS = 20, 0.1
"""So many keys are set so often…"""
LIFE_MS = 4_000
"""…and live for so long: longer than a shard is in nobody's hands."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180 + 2 * SECONDS)]


@asynccontextmanager
async def expiring(deployment: Deployment) -> AsyncIterator[None]:
    """Meanwhile, keys are set that expire."""

    async def go_on() -> None:
        start = 0
        while True:
            await deployment.set(keys(BURST, start=start), LIFE_MS, known=False)
            start += BURST
            await asyncio.sleep(PAUSE_SECONDS)

    task = asyncio.create_task(go_on(), name="writer")
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        await end([task])


async def test_rolling_restarts_lose_nothing_and_store_nothing_twice(
    redis_kind: type[RedisServer], capsys: pytest.CaptureFixture[str]
) -> None:
    async with sharded(redis_kind) as deployment:
        old = await deployment.ready_bridge()
        other = await deployment.start_bridge()
        await shared(deployment, (old, SHARDS // 2), (other, SHARDS // 2))
        begun, restarts = time.monotonic(), 0
        async with expiring(deployment):
            while time.monotonic() < begun + SECONDS if SECONDS else restarts < RESTARTS:
                new = await deployment.start_bridge()
                await new.ready(PATIENCE)
                assert await old.stop(PATIENCE) == 0, old.log()
                await shared(deployment, (other, SHARDS // 2), (new, SHARDS // 2))
                old, other = other, new
                restarts += 1
                await asyncio.sleep(max(begun + restarts * RESTART_SECONDS - time.monotonic(), 0) if SECONDS else 0)
        await deployment.past([key for key, _ in deployment.expected.values()])
        stored = await deployment.delivered()
        with capsys.disabled():
            said = f"{restarts} restarts, {len(stored)} expirations, {len(await deployment.gaps())} gaps"
            print(f"\n{redis_kind.distribution}: {said}: none lost, none stored twice")  # noqa: T201 - what it is for
