"""Notifications that are switched off for a moment, too short for a touch's mark or a canary to miss it.

A mark that was muted never comes back. That shows when a later one does; until then, no expiration of its keys may be
taken for that of a former life.
"""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bridge.redis.protocol.operations import appeared
from tests.support.deployments.interruptions import FLAGS, NEEDED
from tests.support.harness.inside import Inside
from tests.support.harness.published import deadlines
from tests.support.harness.user import expired, recorded
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy
from tests.support.redis.commands import set_for, user_of
from tests.support.redis.operations import batch_with
from tests.support.servers import RedisServer

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

KEY = b"key"


@pytest.fixture
async def server(redis_kind: type[RedisServer]) -> AsyncIterator[RedisServer]:
    with redis_kind() as started:
        yield started


@pytest.fixture
async def user(server: RedisServer) -> AsyncIterator[Redis]:
    async with user_of(server) as client:
        yield client


async def test_an_expiration_is_told_once_if_the_mark_of_its_recording_was_muted(
    server: RedisServer, user: Redis
) -> None:
    async with Proxy(server.port, Protocol.RESP) as proxy, Inside(proxy.port) as bridge:
        await bridge.reconciled()
        recording = proxy.break_on(TO_SERVER, batch_with(lambda operations: appeared(KEY) in operations), Action.HOLD)
        deadline = await set_for(user, KEY, 2_000)
        await recording.reached()
        await user.config_set(FLAGS, "")
        recording.release()
        await recorded(user, KEY)
        await user.config_set(FLAGS, NEEDED)
        await bridge.reconciled(2)
        assert "mute for a moment" in bridge.telemetry.causes[1]
        await expired(user, KEY)
        await bridge.told(1)
        await user.client_kill_filter(_type="pubsub")
        await bridge.reconciled(3)
        await bridge.quiet(user)
        assert deadlines(bridge.published) == [deadline]
