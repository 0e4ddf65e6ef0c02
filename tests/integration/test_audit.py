"""Gaps as data: each is a record in the broker, and what it says was missed is what was missed, or null.

The audit is believed only if it never tells a wrong number: so most of these tests try to mislead it.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bridge.limits import EpochLimits, Limits
from tests.support.contract import CANARY
from tests.support.harness.inside import Inside
from tests.support.harness.user import LAZY, NAMES, expired, known, lapse, passed, recorded
from tests.support.limits import QUICK
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy
from tests.support.redis.commands import redis_ms, run, set_for, user_of
from tests.support.redis.operations import GAP_CLOSED, batch_with_any
from tests.support.servers import RedisServer, wait_until

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

LONG_MS = 600_000
OTHER_DB = 7
FLAGS = "notify-keyspace-events"


async def end_some(server: RedisServer, counts: Sequence[tuple[int, int]], name: str = "gone") -> None:
    """Let keys expire now: so many, in each of these databases."""
    for db, count in counts:
        async with user_of(server, db) as client:
            keys = [b"%b:%d:%d" % (name.encode(), db, number) for number in range(count)]
            for key in keys:
                await client.set(key, "", px=1)
            await expired(client, *keys)


# What is missed is counted.


async def test_the_first_record_tells_of_the_start_and_that_nobody_knows_what_was_before(
    server: RedisServer, user: Redis
) -> None:
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
        (event,) = bridge.broker.gaps
    assert event["type"] == "redis.expiry.gap"
    assert event["source"] == "/redis"
    assert record == {
        "node": f"127.0.0.1:{server.port}",
        "opened_ms": record["opened_ms"],
        "closed_ms": record["closed_ms"],
        "cause": "start",
        "missed": None,
        "recovered": 0,
        "ambiguous": 0,
    }
    assert record["opened_ms"] <= record["closed_ms"] <= await redis_ms(user)


@pytest.mark.parametrize("stopped", [False, True], ids=["killed", "stopped"])
async def test_what_expires_while_nobody_listens_is_missed_in_all_databases(
    server: RedisServer, user: Redis, *, stopped: bool
) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await end_some(server, [(0, 3), (OTHER_DB, 2)], "heard")
        await bridge.quiet(user)
        await (bridge.stop() if stopped else bridge.kill())
    await lapse(user)
    for number in range(4):
        await known(user, b"recorded:%d" % number, 1)
    await expired(user, *(b"recorded:%d" % number for number in range(4)))
    await end_some(server, [(0, 5), (OTHER_DB, 6)])
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
        assert (record["missed"], record["recovered"], record["ambiguous"]) == (4 + 5 + 6, 4, 0)
        await bridge.told(4)
        assert {event["data"]["via"] for event in bridge.published} == {"sweep"}


async def test_what_is_overdue_and_not_expired_yet_was_not_missed(server: RedisServer, user: Redis) -> None:
    await user.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")  # type: ignore[no-untyped-call]
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await bridge.kill()
    await lapse(user)
    await passed(user, await known(user, b"overdue", 1))
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
        await bridge.told(1)
    assert (record["missed"], record["recovered"]) == (0, 0)


async def until_settled(user: Redis) -> None:
    async def is_empty() -> bool:
        return await user.xlen(NAMES.outbox) == 0

    await wait_until(is_empty, "an empty outbox")


async def test_notifications_that_were_heard_are_not_missed_whenever_the_bridge_is_killed(
    server: RedisServer, user: Redis
) -> None:
    for life in range(6):
        async with Inside(server.port) as bridge:
            record = (await bridge.records(1))[0]
            assert record["missed"] == (0 if life else None), record
            await bridge.reconciled()
            await end_some(server, [(0, 5)], f"life-{life}")
            await bridge.told(5)
            await until_settled(user)  # else the next one's first messages are these once more
            await bridge.kill()
        await lapse(user)


async def test_keys_that_are_not_bridged_and_keys_elsewhere_are_heard_too(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port, keys=["mine:*"]) as bridge:
        await bridge.reconciled()
        for number in range(3):
            await end_some(server, [(0, 4), (OTHER_DB, 4)], f"others-{number}")
        await set_for(user, b"mine:1", 1)
        await expired(user, b"mine:1")
        await bridge.told(1)
        await user.client_kill_filter(_type="pubsub")
        await bridge.reconciled(2)
        assert [record["missed"] for record in await bridge.records(2)] == [None, 0]
        assert bridge.telemetry.endings == ["Redis closed the connection"]


async def test_what_is_muted_within_an_epoch_ends_it_and_is_counted(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await known(user, b"recorded", LONG_MS)
        await user.config_set(FLAGS, "Eg")
        await end_some(server, [(0, 3)])
        await user.config_set(FLAGS, "Egxe")
        await bridge.ended()
        await bridge.reconciled(2)
        _, record = await bridge.records(2)
        assert "not notified" in record["cause"] or "did not notify it" in record["cause"]
        assert record["missed"] == 3


async def test_a_gap_begins_where_the_audit_has_last_looked(server: RedisServer, user: Redis) -> None:
    limits = Limits(epoch=EpochLimits(audit=3600.0))  # it looks when the gap is closed, and never again
    async with Inside(server.port, limits=limits) as bridge:
        (first,) = await bridge.records(1)
        await bridge.reconciled()
        for number in range(3):
            await known(user, b"round:%d" % number, 1)
            await expired(user, b"round:%d" % number)
            await bridge.quiet(user)
        await bridge.kill()
    await lapse(user)
    async with Inside(server.port, limits=limits) as bridge:
        (second,) = await bridge.records(1)
    assert second["opened_ms"] == first["closed_ms"]
    assert second["missed"] == 0


# What nobody can know is null.


async def settled(user: Redis) -> None:
    """Return when the outbox is empty."""

    async def is_empty() -> bool:
        return not await user.xlen(NAMES.outbox)

    await wait_until(is_empty, "an empty outbox")


async def test_after_a_reset_of_the_counters_nothing_is_claimed_to_be_known(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await end_some(server, [(0, 9)], "heard")
        await bridge.told(9)
        await bridge.quiet(user)
        await bridge.kill()
    await user.config_resetstat()
    await end_some(server, [(0, 2)])
    await lapse(user)
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
        await settled(user)  # else the next bridge publishes that record once more
        await bridge.kill()
    assert record["missed"] is None
    await lapse(user)
    await end_some(server, [(0, 2)])
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
    assert record["missed"] == 2  # counted anew


async def test_a_reset_while_the_bridge_listens_is_no_gap_and_misleads_nobody(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        for number in range(3):
            await end_some(server, [(0, 4)], f"heard-{number}")
            await user.config_resetstat()
            await bridge.told(4 * (number + 1))
            await seen_again(user)
        assert bridge.telemetry.endings == []
        await user.client_kill_filter(_type="pubsub")
        await bridge.reconciled(2)
        assert (await bridge.records(2))[1]["missed"] in {0, None}


async def seen_again(user: Redis) -> None:
    """Return when the bridge has stored that all was handled up to a moment after this call."""
    asked = await redis_ms(user)

    async def is_seen() -> bool:
        return int(await user.hget(NAMES.lease, "seen_ms") or 0) > asked

    await wait_until(is_seen, "a sign of life")


async def test_over_a_restart_of_redis_nobody_can_tell(redis_kind: type[RedisServer]) -> None:
    with redis_kind(LAZY, appendonly=True) as server:
        async with user_of(server) as user, Inside(server.port) as bridge:
            await bridge.reconciled()
            server.restart()
            await bridge.reconciled(2)
            assert [record["missed"] for record in await bridge.records(2)] == [None, None]
            assert await user.ping()


async def test_a_user_who_may_not_listen_to_other_databases_has_no_audit(server: RedisServer, user: Redis) -> None:
    rule = ["on", "nopass", "~*", "+@all", "resetchannels", "&__keyevent@0__:*"]
    await user.execute_command("ACL", "SETUSER", "narrow", *rule)  # type: ignore[no-untyped-call]
    async with Inside(server.port, redis_username="narrow", redis_password="any") as bridge:
        await bridge.reconciled()
        await set_for(user, b"k", 1)
        await expired(user, b"k")
        await bridge.told(1)
        await user.client_kill_filter(_type="pubsub")
        await bridge.reconciled(2)
        assert [record["missed"] for record in await bridge.records(2)] == [None, None]


async def test_where_config_is_refused_the_audit_works_all_the_same(server: RedisServer, user: Redis) -> None:
    rule = ["on", "nopass", "~*", "&*", "+@all", "-config"]
    await user.execute_command("ACL", "SETUSER", "managed", *rule)  # type: ignore[no-untyped-call]
    async with Inside(server.port, redis_username="managed", redis_password="any") as bridge:
        await bridge.reconciled()
        await bridge.kill()
    await end_some(server, [(0, 2), (OTHER_DB, 2)])
    await lapse(user)
    async with Inside(server.port, redis_username="managed", redis_password="any") as bridge:
        assert [record["missed"] for record in await bridge.records(1)] == [4]


# A counter that counts something else.


async def test_a_counter_that_is_wrong_again_and_again_is_not_believed(server: RedisServer, user: Redis) -> None:
    epoch = EpochLimits(canary=600.0)  # else one may expire while Redis is mute, and end the epoch for another reason
    most_short = epoch.audit_most_short
    async with AsyncExitStack() as stack:
        bridge = await stack.enter_async_context(Inside(server.port, limits=Limits(epoch=epoch)))
        for number in range(most_short):
            await bridge.reconciled(number + 1)
            await seen_again(user)
            await user.config_set(FLAGS, "Eg")
            async with user_of(server, OTHER_DB) as other:
                await other.set("k", "", px=1)
                await expired(other, b"k")
            await user.config_set(FLAGS, "Egxe")
            await bridge.ended(number + 1)
        await bridge.reconciled(most_short + 1)
        assert (await bridge.records(most_short + 1))[-1]["missed"] is None


# The record itself.


async def test_a_record_is_published_once_though_the_reply_of_its_script_is_lost(
    server: RedisServer, user: Redis
) -> None:
    async with Proxy(server.port, Protocol.RESP) as link:
        closing = link.break_on(TO_SERVER, batch_with_any(GAP_CLOSED), Action.CUT_REPLY)
        async with Inside(link.port) as bridge:
            await closing.reached()
            await bridge.reconciled(1)
            first, second = await bridge.records(2)
            ids = [event["id"] for event in bridge.broker.gaps]
    assert len(set(ids)) == 2
    assert first["cause"] == "start"
    assert first["opened_ms"] <= first["closed_ms"] == second["opened_ms"] <= second["closed_ms"]
    assert second["missed"] == 0


async def test_a_gap_that_is_cut_off_before_its_record_is_told_of_by_the_next(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await bridge.kill()
    await lapse(user)
    await known(user, b"recorded", 1)
    await expired(user, b"recorded")
    async with Proxy(server.port, Protocol.RESP) as link:
        closing = link.break_on(TO_SERVER, batch_with_any(GAP_CLOSED), Action.HOLD)
        async with Inside(link.port) as bridge:
            await closing.reached()
            await bridge.told(1)
            link.cut()
            await bridge.kill()
    await lapse(user)
    async with Inside(server.port) as bridge:
        (record,) = await bridge.records(1)
    assert (record["missed"], record["recovered"]) == (1, 1)


# The canary.


async def test_the_canary_is_neither_recorded_nor_published(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        await wait_until(lambda: bridge.telemetry.canaries >= 3)
        await bridge.quiet(user)
        assert bridge.published == []
        assert await user.zrange(NAMES.deadlines, 0, -1) == []
        await bridge.stop()
    assert await user.keys("*canary*") == []


async def test_expirations_that_are_mute_are_noticed_without_any_right_to_the_configuration(
    server: RedisServer, user: Redis
) -> None:
    await user.config_set(FLAGS, "Eg")
    rule = ["on", "nopass", "~*", "&*", "+@all", "-config"]
    await user.execute_command("ACL", "SETUSER", "managed", *rule)  # type: ignore[no-untyped-call]
    async with Inside(server.port, redis_username="managed", redis_password="any") as bridge:
        await bridge.ended(2)
        assert "canary" in bridge.unready
        assert {"did not notify it" in reason for reason in bridge.telemetry.endings} == {True}
        await set_for(user, b"k", LONG_MS)
        await recorded(user, b"k")
        await user.config_set(FLAGS, "Egxe")
        await bridge.reconciled()  # an epoch that is ready may still end, for what was mute when it began
        await user.pexpire(b"k", 1)
        await bridge.told(1)


async def test_a_canary_that_is_deleted_is_no_alarm(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()

        async def is_caught() -> bool:
            return any([await user.delete(key) for key in await user.keys("*canary*")])

        await wait_until(is_caught)
        heard = bridge.telemetry.canaries
        await wait_until(lambda: bridge.telemetry.canaries > heard)
        assert bridge.telemetry.endings == []


@pytest.mark.parametrize("change", ["PEXPIRE", "PERSIST"])
async def test_a_canary_that_outlives_its_time_is_followed_by_another(
    server: RedisServer, user: Redis, change: str
) -> None:
    """As when Redis's clock is set back, or where a program gives every key its own TTL."""
    limits = replace(QUICK, epoch=replace(QUICK.epoch, canary_late_ms=100))
    async with Inside(server.port, limits=limits) as bridge:
        await bridge.reconciled()

        async def is_changed() -> bool:
            more = [3_600_000] if change == "PEXPIRE" else []
            return bool(await run(user, change, CANARY, *more))

        await wait_until(is_changed)
        heard = bridge.telemetry.canaries
        await wait_until(lambda: bridge.telemetry.canaries > heard + 1)
        await bridge.quiet(user)
        assert bridge.telemetry.endings == []


async def test_a_gap_that_began_before_the_clock_was_set_back_does_not_end_before_it_begins(
    server: RedisServer, user: Redis
) -> None:
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
    ahead = await redis_ms(user) + 3_600_000
    await user.hset(NAMES.lease, "seen_ms", ahead)  # as if it had been an hour later then
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        (record,) = await bridge.records(1)
        assert record["opened_ms"] <= record["closed_ms"] < ahead
        await known(user, b"k", 50)
        await bridge.told(1)
