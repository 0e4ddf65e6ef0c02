"""The rules of the ledger protocol, as a running bridge keeps them: its stream held, its replies cut, its lease taken.

A proxy between the bridge and Redis does to the connection what the network might, at the moment that hurts most.
"""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bridge.limits import Limits, WireLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.anchor import Measured
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.place import Place
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import Subscription
from bridge.settings import Settings
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import deadlines, ids, keys
from tests.support.harness.user import NAMES, NOTIFY, entry, expired, known, passed, recorded
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Proxy, command, is_subscriber
from tests.support.redis.commands import lazily, run, set_for, user_of
from tests.support.redis.operations import APPEARED, SCAN, batch_with_any, claim_of
from tests.support.servers import RedisServer, wait_until

LONG_MS = 60_000
LISTED = ["?*", "*?"]
"""Patterns of all keys, as no script can scan for."""


@pytest.fixture
def limits() -> Limits:
    """Of `bridge`: these tests are not about how long it takes to try again."""
    return SOON


# The stream is held.


async def test_an_expiration_before_the_known_deadline_is_told_at_once(
    bridge: Inside, proxy: Proxy, user: Redis
) -> None:
    await set_for(user, b"k", LONG_MS)
    await recorded(user, b"k")
    held = proxy.stall(TO_CLIENT, is_subscriber)
    await user.pexpire(b"k", 1)
    await expired(user, b"k")
    held.release()
    await bridge.told(1)
    await bridge.quiet(user)
    assert deadlines(bridge.published) == [None]
    assert await entry(user, b"k") is None


async def test_a_key_that_expires_three_times_while_hints_are_late_is_told_three_times(
    bridge: Inside, proxy: Proxy, user: Redis
) -> None:
    held = proxy.stall(TO_CLIENT, is_subscriber)
    for _ in range(3):
        await set_for(user, b"k", 5)
        await expired(user, b"k")
    held.release()
    await bridge.quiet(user)
    assert keys(bridge.published) == [b"k"] * 3
    assert len(set(ids(bridge.published))) == 3


async def test_hints_that_only_record_wait_for_more_and_go_with_all_that_came_meanwhile(
    proxy: Proxy, user: Redis
) -> None:
    gather, began = 2.0, time.monotonic()
    patient = replace(
        SOON,
        epoch=replace(SOON.epoch, gather=gather, heartbeat=90.0, mark=100.0),
        ledger=replace(SOON.ledger, lease_ms=300_000),
    )
    async with Inside(proxy.port, limits=patient) as bridge:
        await bridge.reconciled()
        batches = int(await user.hget(NAMES.lease, "seq") or 0)
        for number in range(20):
            await set_for(user, b"%d" % number, LONG_MS)
        await set_for(user, b"short", 1)
        await expired(user, b"short")
        await bridge.told(1)
        assert [await entry(user, b"%d" % number) is None for number in range(20)] == [False] * 20
        assert int(await user.hget(NAMES.lease, "seq") or 0) - batches <= 2 + (time.monotonic() - began) / gather


# A script's reply is cut, or the script is.


@pytest.mark.parametrize("cut", [Action.CUT, Action.CUT_REPLY])
async def test_a_claim_whose_reply_is_cut_is_told_once_without_a_restart(
    cut: Action, bridge: Inside, proxy: Proxy, user: Redis
) -> None:
    held = proxy.stall(TO_CLIENT, is_subscriber)
    claim = proxy.break_on(TO_SERVER, claim_of(b"unknown"), cut)
    known_deadline = await known(user, b"known", 1)
    await expired(user, b"known")
    await set_for(user, b"unknown", 1)
    await expired(user, b"unknown")
    held.release()
    await claim.reached()
    await bridge.reconciled(2)
    await bridge.quiet(user)
    assert Counter(keys(bridge.published)) == {b"known": 1, b"unknown": 1}
    assert set(deadlines(bridge.published)) == {known_deadline, None}

    async def is_settled() -> bool:
        return await user.hget(NAMES.lease, "depth") == b"0"

    await wait_until(is_settled, "an empty outbox")


async def test_what_a_touch_ended_before_a_disconnect_is_told_or_counted(proxy: Proxy, user: Redis) -> None:
    await lazily(user)
    async with Inside(proxy.port, limits=SOON) as bridge:
        await bridge.reconciled()
        held = proxy.stall(TO_CLIENT, is_subscriber)
        await known(user, b"back", 1)
        deadline = await known(user, b"gone", 1)

        async def are_touched() -> bool:
            canaries = int(await user.hget(NAMES.lease, "canaries") or 0)
            return int((await user.info("stats"))["expired_keys"]) - canaries >= 2

        await wait_until(are_touched, "the touch")
        later = await set_for(user, b"back", LONG_MS)
        proxy.cut(is_subscriber)
        held.release()
        await bridge.reconciled(2)
        await bridge.quiet(user)
        told = [event["data"] for event in bridge.published]
        assert [(data["key"], data["deadline_ms"], data["via"]) for data in told] == [("gone", deadline, "sweep")]
        assert bridge.telemetry.ambiguous == 1
        assert await entry(user, b"back") == later


async def test_what_a_scan_returned_is_read_again_when_it_is_recorded(proxy: Proxy, user: Redis) -> None:
    for key in (b"deleted", b"persisted", b"alive"):
        await set_for(user, key, LONG_MS)
    scan = proxy.break_on(TO_SERVER, command(b"SCAN"), Action.HOLD_REPLY)
    async with Inside(proxy.port, limits=SOON, keys=LISTED) as bridge:
        await scan.reached()
        await user.delete(b"deleted")
        await user.persist(b"persisted")
        await bridge._past_here(user)
        scan.release()
        await bridge.reconciled()
        assert await user.zrange(NAMES.deadlines, 0, -1) == [b"alive"]
        assert bridge.published == []


async def test_what_is_flushed_while_a_scan_is_under_way_is_never_told(proxy: Proxy, user: Redis) -> None:
    await set_for(user, b"flushed", LONG_MS)
    scan = proxy.break_on(TO_SERVER, command(b"SCAN"), Action.HOLD_REPLY)
    async with Inside(proxy.port, limits=SOON, keys=LISTED) as bridge:
        await scan.reached()
        await known(user, b"due", 1)
        await user.flushall()
        scan.release()
        await bridge.reconciled()
        await bridge.quiet(user)
        assert await user.zcard(NAMES.deadlines) == 0
        assert bridge.published == []
        assert "lease" in bridge.telemetry.causes[-1]


@pytest.mark.parametrize("patterns", [["*"], LISTED], ids=["scanned", "listed"])
async def test_a_bridge_that_is_stopped_does_not_go_through_the_rest_of_the_keyspace(
    patterns: list[str], proxy: Proxy, user: Redis
) -> None:
    count = 10 * SOON.epoch.found_keys
    await user.eval(f"for i = 1, {count} do redis.call('SET', i, '', 'PX', {LONG_MS}) end", 0)
    first = proxy.break_on(TO_SERVER, batch_with_any(SCAN, APPEARED), Action.HOLD_REPLY)
    async with Inside(proxy.port, limits=SOON, keys=patterns) as bridge:
        await first.reached()
        stopped = asyncio.create_task(bridge.stop(), name="stop")
        await asyncio.sleep(0)
        first.release()
        await stopped
        assert 0 < await user.zcard(NAMES.deadlines) < count


# Redis does not expire, or says nothing of it.


async def test_a_deadline_that_passes_while_writes_are_paused_is_told_once(proxy: Proxy, user: Redis) -> None:
    # The next touch is the one at the deadline.
    slow = replace(SOON, epoch=replace(SOON.epoch, heartbeat=1.5), ledger=replace(SOON.ledger, lease_ms=5_000))
    async with Inside(proxy.port, limits=slow) as bridge:
        await bridge.reconciled()
        await lazily(user)
        deadline = await known(user, b"k", 200)
        await set_for(user, b"wakes the bridge", LONG_MS)
        await recorded(user, b"wakes the bridge")  # so it knows of the deadline, and will touch at it
        await user.client_pause(5_000, all=False)
        await passed(user, deadline + 20)
        await user.client_unpause()
        await bridge.told(1)
        await bridge.quiet(user)
        assert keys(bridge.published) == [b"k"]


async def test_without_the_flag_for_deletions_nothing_is_told_and_it_is_not_ready(proxy: Proxy, user: Redis) -> None:
    # The marks shall tell it, and not that the flags are looked at now and then.
    soon_mute = replace(SOON, epoch=replace(SOON.epoch, mark=0.2), wire=replace(SOON.wire, flags_check=3_600.0))
    async with Inside(proxy.port, limits=soon_mute, redis_notifications="verify") as bridge:
        await bridge.reconciled()
        await set_for(user, b"long", LONG_MS)
        await recorded(user, b"long")
        await user.config_set("notify-keyspace-events", "Ex")
        await known(user, b"short", 1, ("DEL", "short"))
        await user.delete(b"long")
        await bridge.ended()
        assert bridge.published == []
        assert "subscription" in bridge.unready
        await user.zrem(NAMES.deadlines, b"short")  # after the gap it would look like an expiry, and be told as one
        await wait_until(lambda: "notify-keyspace-events" in bridge.unready.get("subscription", ""))
        await user.config_set("notify-keyspace-events", NOTIFY["notify-keyspace-events"])
        await bridge.reconciled(2)
        await bridge.quiet(user)
        assert bridge.published == []
        assert "mute" in bridge.telemetry.endings[0]


async def test_a_flag_that_is_taken_away_is_set_again_behind_a_gap(
    proxy: Proxy, user: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Inside(proxy.port, limits=replace(SOON, wire=WireLimits(flags_check=0.05))) as bridge:
        await bridge.reconciled()
        await user.config_set("notify-keyspace-events", "Eg")
        deadline = await known(user, b"k", 1)
        await expired(user, b"k")
        await bridge.reconciled(2)
        await bridge.quiet(user)
        assert deadlines(bridge.published) == [deadline]
        assert "notify-keyspace-events" in bridge.telemetry.causes[-1]


# The bridge's own keys.


LOSSES = {
    "the ledger is deleted": ("DEL", NAMES.deadlines),
    "the ledger is renamed": ("RENAME", NAMES.deadlines, "mine"),
    "the lease is deleted": ("DEL", NAMES.lease),
    "the database is swapped away": ("SWAPDB", 0, 1),
    "the database is flushed": ("FLUSHDB",),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_the_loss_of_an_own_key_is_a_gap_with_its_cause(loss: str, bridge: Inside, user: Redis) -> None:
    await set_for(user, b"k", LONG_MS)
    await recorded(user, b"k")
    await user.execute_command(*LOSSES[loss])  # type: ignore[no-untyped-call]
    await set_for(user, b"wakes the bridge", LONG_MS)
    await bridge.reconciled(2)
    assert bridge.telemetry.causes[0] == "start"
    assert any(word in bridge.telemetry.causes[1] for word in ("own key deadlines was deleted", "lease was gone"))
    flushed = "database" in loss
    expected = [b"wakes the bridge"] if flushed else [b"k", b"wakes the bridge"]
    assert sorted(await user.zrange(NAMES.deadlines, 0, -1)) == expected
    await bridge.quiet(user)
    assert bridge.published == []


async def test_the_eviction_of_the_ledger_is_a_gap_with_its_cause(bridge: Inside, user: Redis) -> None:
    await set_for(user, b"k", LONG_MS)
    await recorded(user, b"k")
    await user.config_set("maxmemory-policy", "allkeys-random")
    await user.config_set("maxmemory", 1)
    await bridge.ended()
    await user.config_set("maxmemory", 0)
    await bridge.reconciled(2)
    assert any(word in bridge.telemetry.causes[1] for word in ("evicted", "lease lost"))
    await bridge.quiet(user)
    assert bridge.published == []


async def test_expirations_of_another_database_are_not_told(bridge: Inside, user: Redis, server: RedisServer) -> None:
    async with user_of(server, db=1) as other:
        await set_for(other, b"k", 1)
        await expired(other, b"k")
    await user.config_resetstat()
    await set_for(user, b"k", 1)
    await expired(user, b"k")
    await bridge.quiet(user)
    assert keys(bridge.published) == [b"k"]
    assert bridge.telemetry.causes == ["start"]


# The stream begins.


async def test_what_is_heard_before_all_channels_are_confirmed_is_dropped_and_all_that_follows_is_kept() -> None:
    expired_channel, gone_channel = b"__keyevent@0__:expired", b"__keyevent@0__:del"
    frames = [
        _reply(b"subscribe", expired_channel, 1),
        _reply(b"message", expired_channel, b"early"),
        _reply(b"subscribe", gone_channel, 2),
        _reply(b"message", gone_channel, b"subscribe"),
        _reply(b"message", expired_channel, gone_channel),
    ]
    stream = b"+OK\r\n" + b"".join(frames)
    confirmed_at = len(b"+OK\r\n" + b"".join(frames[:3]))
    for step in (1, 7, len(stream)):
        inbox = Inbox(WireLimits())
        session = Subscription([expired_channel, gone_channel], inbox, lambda: None, Endpoint.of(Settings()))
        confirmed = asyncio.create_task(session.confirmed())
        for start in range(0, len(stream), step):
            session.data_received(stream[start : start + step])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert confirmed.done() == (start + step >= confirmed_at)
        assert list(inbox) == [
            (gone_channel, b"subscribe"),
            (expired_channel, gone_channel),
        ]
        assert session.ended is None
        await confirmed
    assert {expired_channel, gone_channel} <= set(channels(0))


def _reply(kind: bytes, channel: bytes, last: bytes | int) -> bytes:
    tail = b":%d\r\n" % last if isinstance(last, int) else b"$%d\r\n%b\r\n" % (len(last), last)
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in (kind, channel)) + tail


async def test_a_lease_that_is_lost_while_a_gap_is_filled_is_asked_for_again(
    server: RedisServer, user: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    measure = Ledger.measure

    async def too_late(ledger: Ledger, fence: int, mark: bytes) -> Measured | None:
        if not lost:
            lost.append(await user.hincrby(NAMES.lease, "fence", 1))
        return await measure(ledger, fence, mark)

    monkeypatch.setattr(Ledger, "measure", too_late)
    async with Inside(server.port, limits=SOON, redis_backlog="keep") as first:
        await first.reconciled()
        await set_for(user, b"k", LONG_MS)
        await recorded(user, b"k")

        async def leaves_a_place() -> bool:
            place = Place.parse(await run(user, "HGET", NAMES.lease, "place") or b"")
            return place is not None and place.anchor is not None

        await wait_until(leaves_a_place, "a place to go on from")
    async with Inside(server.port, "second", limits=SOON, redis_backlog="keep") as second:
        await wait_until(lambda: lost, "the filler to measure")
        await second.reconciled()
        await user.pexpire(b"k", 1)
        await second.told(1)
