"""A Redis that takes connections and says nothing of what expires: the bridge must notice, and must not hammer it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bridge.clock import SystemClock
from tests.support.harness.inside import Inside
from tests.support.harness.published import key_of
from tests.support.limits import QUICK
from tests.support.redis.commands import redis_ms, run, user_of
from tests.support.servers import RedisServer, require, wait_until

pytestmark = pytest.mark.both_kinds


@pytest.fixture
async def mute(redis_kind: type[RedisServer]) -> AsyncIterator[tuple[RedisServer, Redis]]:
    """It notifies deletions, and no expirations; the bridge may not look into its configuration."""
    require(redis_kind)
    with redis_kind({"notify-keyspace-events": "Ege"}) as server:
        async with user_of(server) as user:
            await run(user, "ACL", "SETUSER", "bridge", "on", "nopass", "~*", "&*", "+@all", "-config")
            yield server, user


class Restless(SystemClock):
    """Notes how long the source is to pause between two epochs, and cuts that short."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """See `Clock`. What the source's own task waits for is the next epoch; all else are tasks of the epoch."""
        task = asyncio.current_task()
        if seconds is not None and task is not None and task.get_name() == "source":
            self.pauses.append(seconds)
            seconds = 0
        return await super().wait(event, seconds)


async def test_what_is_mute_for_good_is_one_gap_and_is_tried_ever_more_seldom(mute: tuple[RedisServer, Redis]) -> None:
    server, user = mute
    url = f"redis://bridge:any@127.0.0.1:{server.port}/0"
    limits, clock = QUICK.source, Restless()
    ceilings = [min(limits.backoff_first * 2**number, limits.backoff_most) for number in range(8)]
    async with Inside(0, clock=clock, redis_url=url, redis_notifications="verify") as bridge:
        await bridge.ended(1)
        first_ended_ms = await redis_ms(user)
        await wait_until(lambda: len(clock.pauses) >= len(ceilings), "pauses")
        for pause, ceiling in zip(clock.pauses, ceilings, strict=False):
            assert ceiling / 2 <= pause <= ceiling
        assert all("mute" in reason for reason in bridge.telemetry.endings)
        assert bridge.unready
        assert not bridge.broker.gaps
        await user.set("k", "", px=60_000)

        ends_ms = await redis_ms(user)
        await user.config_set("notify-keyspace-events", "Egxe")
        await bridge.reconciled()
        (record,) = await bridge.records(1)
        assert record["opened_ms"] <= first_ended_ms
        assert record["closed_ms"] >= ends_ms
        await user.pexpire("k", 20)
        await wait_until(lambda: bridge.published)
        assert [key_of(event) for event in bridge.published] == [b"k"]

        paused = len(clock.pauses)
        await user.config_set("notify-keyspace-events", "Ege")
        await wait_until(lambda: len(clock.pauses) > paused, "a pause")
        assert clock.pauses[paused] <= limits.backoff_first, "it is tried at once where the whole way has worked"
