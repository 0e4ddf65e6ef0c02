"""Takeover: while a standby listens, the death of a bridge opens no gap, and nothing is lost or stored twice.

Keys live for some tenths of a second, so what expires while nobody listened would be gone: there is no time to find it.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from signal import SIGCONT, SIGSTOP

import pytest

from tests.support.contract import LEASE
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.short_lives import writing
from tests.support.kinds import KINDS
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured


async def holder(deployment: Deployment) -> Bridge | None:
    """The bridge that has the lease, of those that run."""
    name = str(await deployment.redis.hget(LEASE, "holder"))
    return next((bridge for bridge in deployment.bridges if f"-{bridge.pid}-" in name), None)


async def has_changed(deployment: Deployment, former: Bridge) -> None:
    """Return when another bridge has the lease."""

    async def is_another() -> bool:
        return await holder(deployment) not in {former, None}

    await wait_until(is_another, "another holder", PATIENCE)


async def listening(deployment: Deployment, bridges: int) -> None:
    """Return when that many bridges listen."""

    async def do_listen() -> bool:
        return len(await deployment.redis.pubsub_channels("*:alive:*")) >= bridges

    await wait_until(do_listen, "standbys", PATIENCE)


@asynccontextmanager
async def two_bridges(kind: type[RedisServer]) -> AsyncIterator[Deployment]:
    """The first one has the lease, and its gap is closed; the other one stands by."""
    async with Deployment.of(kind) as deployment:
        await deployment.ready_bridge(direct=True)

        async def is_reconciled() -> bool:
            return await deployment.redis.hget(LEASE, "open") == "0"

        await wait_until(is_reconciled, "the first gap to be closed", PATIENCE)
        await deployment.start_bridge(direct=True)
        await listening(deployment, 2)
        yield deployment


async def killed(deployment: Deployment, bridge: Bridge) -> None:
    bridge.kill()


async def stopped(deployment: Deployment, bridge: Bridge) -> None:
    assert await bridge.stop(PATIENCE) == 0


Ending = Callable[[Deployment, Bridge], Awaitable[None]]


@pytest.mark.parametrize(("kind", "end"), [*zip(KINDS, [killed, stopped], strict=True)])
async def test_the_end_of_a_bridge_opens_no_gap_while_a_standby_listens(kind: type[RedisServer], end: Ending) -> None:
    async with two_bridges(kind) as deployment, writing(deployment) as writer:
        for _ in range(2):  # the second one follows one that has taken over itself
            former = await holder(deployment)
            assert former is not None
            await end(deployment, former)
            await has_changed(deployment, former)
            await writer.goes_on()
            await deployment.start_bridge(direct=True)
            await listening(deployment, 2)
            await writer.goes_on()  # the holder's place is one that the standby has heard, by now
        assert len(await deployment.gaps()) == 1, "that of the first start"


async def test_a_holder_whose_subscription_alone_is_cut_is_followed_without_a_gap(
    redis_kind: type[RedisServer],
) -> None:
    async with two_bridges(redis_kind) as deployment, writing(deployment) as writer:
        former = await holder(deployment)
        assert former is not None
        for _ in range(2):  # which of both sessions is the holder's the list does not say: cut one after the other
            session = next(
                client for client in await deployment.redis.client_list(_type="pubsub") if int(client["sub"])
            )
            await deployment.redis.client_kill(session["addr"])
            await listening(deployment, 2)
            await writer.goes_on()  # the holder's place is one that the other bridge has heard, by now
        await writer.goes_on()
        await listening(deployment, 2)
        assert len(await deployment.gaps()) == 1


@pytest.mark.slow
async def test_a_holder_that_is_frozen_until_its_lease_lapses_and_goes_on_does_no_harm(
    redis_kind: type[RedisServer],
) -> None:
    async with two_bridges(redis_kind) as deployment, writing(deployment, exact=False) as writer:
        former = await holder(deployment)
        assert former is not None
        os.kill(former.pid, SIGSTOP)
        try:
            await has_changed(deployment, former)
            await writer.goes_on()
        finally:
            os.kill(former.pid, SIGCONT)
        await writer.goes_on()
        await listening(deployment, 2)
        assert len(await deployment.gaps()) == 1


async def test_where_nobody_listened_a_gap_opens(redis_kind: type[RedisServer]) -> None:
    async with two_bridges(redis_kind) as deployment:
        for bridge in deployment.bridges:
            bridge.kill()
        await deployment.set(["later:1", "later:2"])
        await deployment.ready_bridge(direct=True)
        await deployment.delivered()

        async def are_two() -> bool:
            return len(await deployment.gaps()) == 2

        await wait_until(are_two, "the second gap", PATIENCE)


async def test_the_lease_of_a_bridge_that_does_not_say_that_it_listens_has_to_end(
    redis_kind: type[RedisServer],
) -> None:
    """As in a rolling upgrade: an older version listens to no channel of its own, and is not dead for that."""
    async with two_bridges(redis_kind) as deployment:
        former = await holder(deployment)
        assert former is not None
        os.kill(former.pid, SIGSTOP)  # its session stays; the lease is that of an older version from here on
        try:
            await deployment.redis.hdel(LEASE, "ears")
            fence = await deployment.redis.hget(LEASE, "fence")
            await deployment.redis.client_kill_filter(_type="pubsub", skipme=True)
            remaining = int(str(await deployment.redis.hget(LEASE, "until")))
            await has_changed(deployment, former)
            assert await deployment.redis.hget(LEASE, "fence") != fence
            seconds, micros = await deployment.redis.time()
            assert seconds * 1000 + micros // 1000 >= remaining, "not before the lease had ended"
        finally:
            os.kill(former.pid, SIGCONT)
