"""The rules of the ledger protocol, where a running bridge meets its limits: memory, another bridge, a long gap."""

from collections import Counter
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from bridge.limits import Limits
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import deadlines, ids, keys, written
from tests.support.harness.user import NAMES, entry, expired, known, lapse, recorded
from tests.support.harness.witness import Witness
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Proxy, command, is_subscriber
from tests.support.redis.commands import lazily, set_for
from tests.support.redis.operations import claim_of
from tests.support.servers import Bridge, RedisServer, wait_until

LONG_MS = 60_000

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]


@pytest.fixture
def limits() -> Limits:
    """Of `bridge`: these tests are not about how long it takes to try again."""
    return SOON


# Limits.


async def test_a_full_outbox_stops_touches_but_refuses_no_claim(proxy: Proxy, user: Redis) -> None:
    await lazily(user)
    async with Inside(proxy.port, limits=SOON, outbox_limit=1) as bridge:
        await bridge.reconciled()
        bridge.broker.up.clear()
        await set_for(user, b"filler", 1)
        await expired(user, b"filler")
        await wait_until(lambda: "outbox" in bridge.unready, "the outbox to be full")
        refreshed = await set_for(user, b"due", LONG_MS)
        await recorded(user, b"due")
        await user.zadd(NAMES.deadlines, {b"due": 1})  # a touch would find it refreshed
        for _ in range(2):
            await known(user, b"k", 1)
            await expired(user, b"k")
        await waiting(user, 3)
        for _ in range(2):
            await sign_of_life(user)
        assert await entry(user, b"due") == 1
        bridge.broker.up.set()
        await bridge.told(3)
        await bridge.quiet(user)
        assert Counter(keys(bridge.published)) == {b"filler": 1, b"k": 2}
        assert len(set(ids(bridge.published))) == 3
        assert await entry(user, b"due") == refreshed
        await wait_until(lambda: not bridge.unready, "readiness")


async def waiting(user: Redis, count: int) -> None:
    """Return when so many expirations wait in the outbox."""

    async def are_there() -> bool:
        return await user.hget(NAMES.lease, "depth") == b"%d" % count

    await wait_until(are_there, f"{count} expirations in the outbox")


async def sign_of_life(user: Redis) -> None:
    """Return when the holder has extended its lease."""
    before = await user.hget(NAMES.lease, "until")

    async def is_extended() -> bool:
        return await user.hget(NAMES.lease, "until") != before

    await wait_until(is_extended, "a sign of life")


async def test_claims_are_made_and_settled_at_maxmemory(bridge: Inside, proxy: Proxy, user: Redis) -> None:
    await lazily(user)
    held = proxy.stall(TO_CLIENT, is_subscriber)
    for number in range(20):
        await known(user, b"known:%d" % number, 1)
        await set_for(user, b"unknown:%d" % number, 1)
    await expired(user, *(b"unknown:%d" % number for number in range(20)))
    await user.config_set("maxmemory", 1)
    held.release()
    await bridge.told(40)
    with pytest.raises(OutOfMemoryError):
        await user.set(b"more", b"")
    assert len(set(keys(bridge.published))) == len(bridge.published) == 40
    await waiting(user, 0)
    assert await user.zcard(NAMES.deadlines) == 0
    assert bridge.telemetry.endings == []


async def test_an_epoch_begins_at_maxmemory(proxy: Proxy, user: Redis) -> None:
    deadline = await known(user, b"k", 1)
    await user.config_set("maxmemory", 1)
    async with Inside(proxy.port, limits=SOON) as bridge:
        await bridge.told(1)
        assert deadlines(bridge.published) == [deadline]


# Two bridges.


async def test_a_claim_that_waits_in_a_stopped_redis_is_told_once(
    proxy: Proxy, user: Redis, server: RedisServer
) -> None:
    settings = {"BRIDGE_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "BRIDGE_SINK": "stdout"}
    async with Bridge(settings) as first:
        await first.ready()
        held = proxy.stall(TO_CLIENT, is_subscriber)
        deadline = await known(user, b"known", 1)
        await set_for(user, b"unknown", 1)
        await expired(user, b"known", b"unknown")
        claim = proxy.break_on(TO_SERVER, claim_of(b"unknown"), Action.HOLD)
        held.release()
        await claim.reached()
        server.pause()
        claim.release()
        first.kill()
        async with Inside(server.port, limits=SOON) as second:
            server.resume()
            await lapse(user)
            await second.reconciled()
            await second.quiet(user)
            told = written(first) + second.published
    assert {(event["id"], event["data"]["key"]) for event in told} == {
        (event["id"], event["data"]["key"]) for event in second.published
    }
    assert Counter(keys(second.published)) <= Counter([b"known", b"unknown"])
    assert deadline in deadlines(second.published)


async def test_a_holder_that_was_stopped_changes_nothing_when_it_goes_on(user: Redis, server: RedisServer) -> None:
    settings = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_SINK": "stdout"}
    async with AsyncExitStack() as stack:
        witness = await stack.enter_async_context(Witness(user))
        first = await stack.enter_async_context(Bridge(settings))
        await first.ready()
        second = await stack.enter_async_context(Inside(server.port, limits=SOON))
        await wait_until(lambda: "standing by" in second.unready.get("subscription", ""))
        first.pause()
        for key in (b"a", b"b"):
            await known(user, key, 1)
        await expired(user, b"a", b"b")
        await lapse(user)
        await second.reconciled()
        for key in (b"c", b"d"):
            await set_for(user, key, 1)
            await expired(user, key)
        await second.quiet(user)
        first.resume()
        await wait_until(lambda: "lease.awaited" in first.log(), "the first to find out")
        await set_for(user, b"e", 1)
        await expired(user, b"e")
        await second.quiet(user)
        await second.stop()
        await first.ready()
        last = await set_for(user, b"f", 1)
        await wait_until(lambda: b"f" in keys(written(first)), f"the first to deliver again {last}")
        told = {(event["id"], event["data"]["key"]) for event in second.published + written(first)}
        await witness.caught_up()
        assert Counter(key.encode() for _, key in told) == witness.counts
        assert sorted(keys(second.published)) == [b"a", b"b", b"c", b"d", b"e"]


# After a gap.


@pytest.mark.parametrize(("count", "are_there"), [(10_000, False), (2_000, True)])
async def test_each_of_many_overdue_keys_is_told_or_counted(
    count: int, *, are_there: bool, server: RedisServer, user: Redis
) -> None:
    every, changed = [b"k:%d" % number for number in range(count)], count // 20
    await lazily(user)
    pipeline = user.pipeline(transaction=True)
    for number, key in enumerate(every):
        pipeline.set(key, b"", px=1)
        pipeline.zadd(NAMES.deadlines, {key: number + 1})
    await pipeline.execute()
    if not are_there:
        await expired(user, *every)
    for key in every[:changed]:
        await set_for(user, key, LONG_MS)
    async with Inside(server.port, limits=SOON) as bridge:
        for back, gone in zip(every[-changed:], every[:changed], strict=True):  # meanwhile
            await set_for(user, back, LONG_MS)
            await user.delete(gone)
        await bridge.reconciled()
        await bridge.quiet(user)
        told = dict(zip(keys(bridge.published), deadlines(bridge.published), strict=True))
        assert len(told) == len(bridge.published)
        assert told == {key: number + 1 for number, key in enumerate(every) if key in told}
        assert set(every[changed:-changed]) <= told.keys()
        if are_there:  # what is still there expires at the touch, which may be its second expiration: both
            assert bridge.telemetry.ambiguous >= count - len(told)
        else:
            assert bridge.telemetry.ambiguous == count - len(told)


async def test_what_is_ambiguous_is_counted_though_the_gap_is_not_closed_in_the_same_epoch(
    proxy: Proxy, user: Redis
) -> None:
    await known(user, b"back", 1)
    await expired(user, b"back")
    later = await set_for(user, b"back", LONG_MS)
    scan = proxy.break_on(TO_SERVER, command(b"SCAN"), Action.HOLD_REPLY)  # the gap cannot be closed
    async with Inside(proxy.port, limits=SOON, keys=["back", "sentinel:*"]) as bridge:
        await scan.reached()

        async def is_resolved() -> bool:
            return await entry(user, b"back") == later

        await wait_until(is_resolved, "the resolve")
        proxy.cut()
        scan.release()
        await bridge.reconciled()
        assert bridge.telemetry.ambiguous == 1
