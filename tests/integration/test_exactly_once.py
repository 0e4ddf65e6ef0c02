"""Each expiration once in the stream, whatever is killed or frozen, and however late it is sent again.

ONCE_TURNS (how often bridge and broker are killed) and ONCE_KEYS (that expire each time) make it larger.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from tests.support.brokers.nats_frames import ACK
from tests.support.contract import STREAM
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import DURABLE, keys
from tests.support.deployments.streams import StreamsDeployment
from tests.support.kinds import on_both_kinds
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action
from tests.support.servers import RedisServer

LARGE = "ONCE_TURNS" in os.environ
TURNS = int(os.environ.get("ONCE_TURNS", "7"))
OF_A_TURN = int(os.environ.get("ONCE_KEYS", "300"))
pytestmark = [pytest.mark.unmeasured, pytest.mark.slow, pytest.mark.timeout(1800 if LARGE else 120)]
SHORTEST_WINDOW = 0.1
"""The least that NATS takes: every repeat comes later."""


@asynccontextmanager
async def with_a_short_window(kind: type[RedisServer]) -> AsyncIterator[Deployment]:
    """A deployment whose stream forgets message ids at once."""
    async with Deployment.of(kind, redis=DURABLE, settings={"BRIDGE_NATS_DEDUPLICATION": "subject"}) as deployment:
        async with deployment.jetstream() as jetstream:
            config = StreamConfig(
                name=STREAM,
                subjects=["expired.*.*.*"],
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
                discard_new_per_subject=True,
                duplicate_window=SHORTEST_WINDOW,
            )
            await jetstream.add_stream(config)
        yield deployment


async def test_on_jetstream_with_bridge_and_broker_killed_again_and_again(redis_kind: type[RedisServer]) -> None:
    """Each time while messages are stored, and the bridge has not heard of it."""
    async with with_a_short_window(redis_kind) as deployment:
        for turn in range(TURNS):
            bridge = await deployment.ready_bridge()
            await deployment.settled()  # the start's gap record
            unheard = deployment.nats_link.break_on(TO_CLIENT, ACK, Action.HOLD)
            await deployment.set(keys(OF_A_TURN, start=turn * OF_A_TURN))
            await unheard.reached()
            bridge.kill()
            deployment.nats_server.kill()
            await asyncio.sleep(2 * SHORTEST_WINDOW)  # what is waited for is that time is over
            deployment.nats_server.start()
            deployment.flow()
            await deployment.expire_lease()
        await deployment.ready_bridge()
        assert len(await deployment.delivered()) == TURNS * OF_A_TURN


async def test_on_jetstream_with_two_bridges_of_which_one_is_frozen_and_goes_on(redis_kind: type[RedisServer]) -> None:
    """What it had sent arrives when the other one has long published the same."""
    async with with_a_short_window(redis_kind) as deployment:
        frozen = await deployment.ready_bridge()
        await deployment.settled()
        on_their_way = deployment.nats_link.break_on(TO_SERVER, rb"^HPUB expired", Action.HOLD)
        await deployment.set(keys(OF_A_TURN))
        await on_their_way.reached()
        await deployment.claimed(OF_A_TURN)
        frozen.pause()
        await deployment.expire_lease()
        await deployment.ready_bridge(direct=True)
        await deployment.delivered()
        await asyncio.sleep(2 * SHORTEST_WINDOW)  # what is waited for is that time is over
        frozen.resume()
        on_their_way.release()
        refused_now = deployment.nats_link.break_on(TO_CLIENT, rb"maximum messages per subject exceeded", Action.DROP)
        await refused_now.reached()
        await deployment.outdone(frozen)
        await deployment.set(keys(OF_A_TURN, start=OF_A_TURN))
        assert len(await deployment.delivered()) == 2 * OF_A_TURN


async def test_on_redis_streams_with_bridge_and_server_killed_again_and_again() -> None:
    await on_both_kinds(streams_killed_again_and_again)


async def streams_killed_again_and_again(kind: type[RedisServer]) -> None:
    """Each time while entries are appended, and the bridge has not heard of it."""
    async with StreamsDeployment.of(kind) as deployment:
        for turn in range(TURNS):
            bridge = await deployment.ready_bridge()
            await deployment.settled()  # the start's gap record
            unheard = deployment.sink_link.break_on(TO_SERVER, rb"(?i)EVALSHA", Action.HOLD_REPLY)
            await deployment.set(keys(OF_A_TURN, start=turn * OF_A_TURN))
            await unheard.reached()
            bridge.kill()
            deployment.sink_server.kill()
            deployment.sink_server.start()
            deployment.flow()
            await deployment.expire_lease()
        await deployment.ready_bridge()
        assert len(await deployment.delivered()) == TURNS * OF_A_TURN


async def test_on_redis_streams_with_two_bridges_of_which_one_is_frozen_and_goes_on() -> None:
    await on_both_kinds(streams_frozen_and_going_on)


async def streams_frozen_and_going_on(kind: type[RedisServer]) -> None:
    """What it had sent arrives when the other one has long appended the same."""
    async with StreamsDeployment.of(kind) as deployment:
        frozen = await deployment.ready_bridge()
        await deployment.settled()
        on_their_way = deployment.sink_link.break_on(TO_SERVER, rb"(?i)EVALSHA", Action.HOLD)
        await deployment.set(keys(OF_A_TURN))
        await on_their_way.reached()
        await deployment.claimed(OF_A_TURN)
        frozen.pause()
        await deployment.expire_lease()
        await deployment.ready_bridge(direct=True)
        await deployment.delivered()
        late = deployment.sink_link.break_on(TO_CLIENT, b"", Action.DROP)
        on_their_way.release()
        await late.reached()
        frozen.resume()
        await deployment.outdone(frozen)
        await deployment.set(keys(OF_A_TURN, start=OF_A_TURN))
        assert len(await deployment.delivered()) == 2 * OF_A_TURN
