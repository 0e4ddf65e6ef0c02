"""A Redis that takes connections and says nothing of what expires: the bridge must notice, and must not hammer it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.support.harness.inside import Inside
from tests.support.harness.published import key_of
from tests.support.redis.commands import run, user_of
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


async def test_what_is_mute_for_good_is_one_gap_and_is_tried_ever_more_seldom(mute: tuple[RedisServer, Redis]) -> None:
    server, user = mute
    url = f"redis://bridge:any@127.0.0.1:{server.port}/0"
    async with Inside(0, redis_url=url, redis_notifications="verify") as bridge:
        began = asyncio.get_running_loop().time()
        await bridge.ended(8)
        assert asyncio.get_running_loop().time() - began > 2.0
        assert all("mute" in reason for reason in bridge.telemetry.endings)
        assert bridge.unready
        assert not bridge.broker.gaps
        await user.set("k", "", px=60_000)

        await user.config_set("notify-keyspace-events", "Egxe")
        await bridge.reconciled()
        (record,) = await bridge.records(1)
        assert record["closed_ms"] - record["opened_ms"] > 2_000
        await user.pexpire("k", 20)
        await wait_until(lambda: bridge.published)
        assert [key_of(event) for event in bridge.published] == [b"k"]
