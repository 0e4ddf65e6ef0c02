"""What the metrics say is what happens, on real servers."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bridge.endings import Ending
from bridge.limits import EpochLimits, Limits, WireLimits
from tests.support.harness.inside import Inside
from tests.support.harness.user import LAZY, NAMES, expired, known, lapse, passed, recorded
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy, command
from tests.support.redis.commands import lazily, redis_ms, set_for, user_of
from tests.support.servers import RedisServer, wait_until

LONG_MS = 600_000


@pytest.fixture
async def server(redis_kind: type[RedisServer]) -> AsyncIterator[RedisServer]:
    with redis_kind(LAZY) as started:
        yield started


@pytest.fixture
async def user(server: RedisServer) -> AsyncIterator[Redis]:
    async with user_of(server) as client:
        yield client


def value(bridge: Inside, name: str, **labels: str) -> float:
    """One sample, as a scrape would find it now; of a metric of shards, that of the first one."""
    find = bridge.telemetry.metrics.registry.get_sample_value
    found = find(f"bridge_{name}", {**labels, "shard": "0"})
    found = find(f"bridge_{name}", labels) if found is None else found
    assert found is not None, name
    return found


def ended(bridge: Inside) -> dict[str, float]:
    """How many epochs have ended for what reason, without those that none has ended for."""
    counts = {ending.value: value(bridge, "epochs_ended_total", reason=ending) for ending in Ending}
    return {reason: count for reason, count in counts.items() if count}


@pytest.mark.parametrize(
    "ending",
    [
        Ending.CONNECTION_LOST,
        Ending.FLAGS_CHANGED,
        Ending.LEASE_LOST,
        Ending.OWN_KEY_LOST,
        Ending.MISSED,
        Ending.MUTE,
        Ending.SHUTDOWN,
    ],
)
async def test_an_epoch_that_ends_is_counted_by_the_kind_of_reason(
    server: RedisServer, user: Redis, monkeypatch: pytest.MonkeyPatch, ending: Ending
) -> None:
    node, limits = (
        f"127.0.0.1:{server.port}",
        Limits(
            wire=WireLimits(flags_check=0.05 if ending is Ending.FLAGS_CHANGED else 60),
            epoch=EpochLimits(heartbeat=0.4, mark=0.5),
        ),
    )
    bridge = Inside(server.port, limits=limits)
    assert value(bridge, "subscription_up", node=node) == 0
    async with bridge:
        await bridge.reconciled()
        await recorded_lease(user)
        assert value(bridge, "subscription_up", node=node) == 1
        assert ended(bridge) == {}
        match ending:
            case Ending.CONNECTION_LOST:
                await user.client_kill_filter(_type="pubsub")
            case Ending.FLAGS_CHANGED | Ending.MUTE:
                await user.config_set("notify-keyspace-events", "")
            case Ending.LEASE_LOST:
                await user.hset(NAMES.lease, "fence", "1")
            case Ending.OWN_KEY_LOST:
                await user.delete(NAMES.lease)
            case Ending.MISSED:
                await unnotified(server, user)
            case _:
                await bridge.stop()
        await bridge.ended()
        if ending is not Ending.SHUTDOWN:
            await user.config_set("notify-keyspace-events", "Egxe")
            await bridge.reconciled(2)
    # Where the lease is gone, the answer to a command that was on its way may say so before the notification does.
    either = {Ending.OWN_KEY_LOST: {Ending.OWN_KEY_LOST.value, Ending.LEASE_LOST.value}}.get(ending, {ending.value})
    (word,) = ended(bridge)
    assert word in either
    assert ended(bridge)[word] == 1
    assert value(bridge, "subscription_up", node=node) == (ending is not Ending.SHUTDOWN)


async def recorded_lease(user: Redis) -> None:
    """Return when the bridge has stored up to when it has handled everything."""
    await wait_until(lambda: user.hget(NAMES.lease, "seen_ms"))


async def unnotified(server: RedisServer, user: Redis) -> None:
    """A key of another database expires, and Redis does not say so; it is mute for just that moment."""
    await lazily(user)
    async with user_of(server, 7) as other:
        await passed(user, await set_for(other, b"unheard", 1))
        transaction = other.pipeline(transaction=True)
        transaction.config_set("notify-keyspace-events", "Eg")
        transaction.get("unheard")
        transaction.config_set("notify-keyspace-events", "Egxe")
        assert await transaction.execute() == [True, None, True]


async def test_attempts_to_reach_a_redis_that_is_down_are_no_ends_of_epochs(redis_kind: type[RedisServer]) -> None:
    with redis_kind(LAZY) as server:
        async with Inside(server.port) as bridge:
            await bridge.reconciled()
            server.kill()
            await bridge.ended()
            first = bridge.unready["subscription"]
            await wait_until(lambda: bridge.unready["subscription"] != first)
            server.start()
            await bridge.reconciled(2)
            assert ended(bridge) == {"connection_lost": 1}


async def test_the_outbox_grows_old_while_the_broker_acks_nothing(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await wait_until(lambda: value(bridge, "outbox_oldest_age_seconds") == 0)
        bridge.broker.up.clear()
        began = time.monotonic()
        for key in (b"first", b"second"):
            await set_for(user, key, 1)
            await expired(user, key)
        await wait_until(lambda: value(bridge, "outbox_expirations") == 2)
        await wait_until(lambda: value(bridge, "outbox_oldest_age_seconds") > 1)
        assert value(bridge, "outbox_oldest_age_seconds") <= time.monotonic() - began
        bridge.broker.up.set()
        await bridge.told(2)
        await wait_until(lambda: value(bridge, "outbox_oldest_age_seconds") == 0)


async def test_the_lag_of_what_a_dead_bridge_left_is_known_before_the_first_touch(
    server: RedisServer, user: Redis
) -> None:
    async with Inside(server.port) as dead:
        await dead.reconciled()
        dead.broker.up.clear()
        deadline_ms = await known(user, b"left", 1)
        await expired(user, b"left")
        await wait_until(lambda: value(dead, "outbox_expirations") == 1)
    await lapse(user)
    async with Proxy(server.port, Protocol.RESP) as proxy:
        subscribing = proxy.break_on(TO_SERVER, command(b"SUBSCRIBE"), Action.HOLD)
        async with Inside(proxy.port) as bridge:
            await subscribing.reached()
            await wait_until(lambda: bridge.broker.events)
            await wait_until(lambda: value(bridge, "lag_seconds_count") == 1)
            assert 0 < value(bridge, "lag_seconds_sum") <= (await redis_ms(user) + 1 - deadline_ms) / 1000
            subscribing.release()
            await bridge.reconciled()


async def test_a_scan_tells_how_far_it_is(server: RedisServer, user: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [b"lasting:%d" % number for number in range(300)]
    await user.mset(dict.fromkeys(keys, b""))
    await set_for(user, b"timed", LONG_MS)
    bridge, shares = Inside(server.port, limits=Limits(epoch=EpochLimits(found_keys=10, part_keys=10))), list[float]()
    progressed = bridge.telemetry.scan_progressed

    def noted(found: int, share: float) -> None:
        progressed(found, share)
        shares.append(value(bridge, "scan_progress_ratio"))

    monkeypatch.setattr(bridge.telemetry, "scan_progressed", noted)
    async with bridge:
        await bridge.reconciled()
        await recorded(user, b"timed")
    assert len(shares) > 10
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < 0.2
    assert abs(shares[len(shares) // 2] - 0.5) < 0.2
    assert shares[-1] == 1
    assert value(bridge, "scan_keys") == value(bridge, "scanned_keys_total") >= len(keys) + 1
