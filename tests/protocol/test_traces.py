"""The rules of the ledger protocol, one step at a time: what each script may do with what it knows at its moment.

Every test is the shortest trace that breaks a rule's naive reading: it loses an expiration, invents one, or gives one
two ids. Redis expires only what is read here, so the order of steps is the test's own.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from bridge.expiration import Via
from bridge.limits.scaled import MIB
from bridge.redis.protocol.calls import ALIVE, GONE
from bridge.redis.protocol.operations import expired as notified
from bridge.redis.protocol.operations import resolve, scan
from bridge.redis.wire.errors import Fenced
from tests.support.harness.hand import Hand
from tests.support.harness.user import NAMES, entry, expired, known, lapse, passed
from tests.support.harness.witness import Witness
from tests.support.redis.commands import lazily, set_for, user_of
from tests.support.servers import RedisServer, wait_until

pytestmark = pytest.mark.both_kinds

LONG_MS = 60_000
Record = Callable[..., Awaitable[object]]


@pytest.fixture
async def user(server: RedisServer) -> AsyncIterator[Redis]:
    """The user, whose reads are the only thing that makes a key expire."""
    async with user_of(server) as user:
        await lazily(user)
        yield user


@pytest.fixture
async def hand(server: RedisServer, user: Redis) -> AsyncIterator[Hand]:
    """An epoch played by hand."""
    async with Hand(server) as hand:
        yield hand


@pytest.fixture(params=["listed", "scanned"])
def record(request: pytest.FixtureRequest, hand: Hand) -> Record:
    """Record these keys, which are all that there are: as found by a SCAN before, or by the script itself."""
    return hand.record if request.param == "listed" else lambda *_: hand.scan()


# A hint is a claim, whatever the entry says.


async def test_a_deadline_that_came_nearer_unheard_is_announced_at_once(hand: Hand, user: Redis) -> None:
    await set_for(user, b"k", LONG_MS)
    await hand.handle()
    await user.pexpire(b"k", 1)
    await expired(user, b"k")
    await hand.handle()
    assert [claim.deadline_ms for claim in await hand.claimed()] == [None]
    assert await entry(user, b"k") is None


async def test_expirations_that_are_heard_together_have_an_id_each(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1)
    await expired(user, b"k")
    for _ in range(3):
        await set_for(user, b"k", 1)
        await expired(user, b"k")
    await hand.handle()
    claims = await hand.claimed()
    assert [claim.deadline_ms for claim in claims] == [deadline, None, None, None]
    assert len({claim.id for claim in claims}) == 4


async def test_an_expiration_by_command_counts_exactly_where_redis_calls_it_one(hand: Hand, user: Redis) -> None:
    async with Witness(user) as witness:
        for key in (b"expireat", b"set", b"getex", b"pexpire"):
            await set_for(user, key, LONG_MS)
        await hand.handle()
        await user.expireat(b"expireat", 1)
        await user.set(b"set", b"", pxat=1)
        await user.getex(b"getex", pxat=1)
        await user.pexpire(b"pexpire", -1)
        await user.set(b"new", b"", pxat=1)
        await hand.handle()
        await witness.caught_up()
        assert Counter(claim.key for claim in await hand.claimed()) == witness.counts
    await hand.sweep("walk")
    assert await user.zcard(NAMES.deadlines) == 0


# A due entry is changed only by a claim or a resolve.


async def test_a_scan_does_not_hide_an_expiration_whose_hint_is_lost(record: Record, hand: Hand, user: Redis) -> None:
    for key in (b"back", b"gone"):
        await known(user, key, 1)
    await expired(user, b"back", b"gone")
    later = await set_for(user, b"back", LONG_MS)
    await record(b"back", b"gone")
    await hand.begin()
    await hand.sweep()
    assert [(claim.key, claim.via) for claim in await hand.claimed()] == [(b"gone", Via.SWEEP)]
    assert (hand.gap.ambiguous, hand.gap.recovered) == (1, 1)
    assert await entry(user, b"back") == later


async def test_a_key_that_expired_and_came_back_is_claimed_once_by_its_hint(
    record: Record, hand: Hand, user: Redis
) -> None:
    deadline = await known(user, b"k", 1)
    await expired(user, b"k")
    later = await set_for(user, b"k", LONG_MS)
    await record(b"k")
    await hand.sweep()
    assert [claim.deadline_ms for claim in await hand.claimed()] == [deadline]
    assert await entry(user, b"k") == later


# What a scan found is read when it is recorded.


async def test_a_key_that_is_deleted_before_its_record_is_never_announced(hand: Hand, user: Redis) -> None:
    for key in (b"deleted", b"alive"):
        await set_for(user, key, LONG_MS)
    _, found = await hand.ledger.scan(0, b"*", 100)
    await user.delete(b"deleted")
    await hand.record(*(key for key in found if not key.startswith(NAMES.own_prefix)))
    assert await user.zrange(NAMES.deadlines, 0, -1) == [b"alive"]
    await hand.handle()
    assert await hand.claimed() == []


async def test_a_key_that_is_deleted_after_its_record_is_never_announced(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1, ("DEL", "k"))
    await passed(user, deadline)
    touched = await hand.touch()
    assert touched.sights == [(b"k", b"%d" % deadline, b"gone", b"1")]
    await hand.handle()
    assert await hand.claimed() == []
    assert hand.gap.ambiguous == 0


@pytest.mark.parametrize("flushed", ["before the record", "after the record", "after the touch"])
async def test_flushed_keys_are_never_announced(flushed: str, record: Record, hand: Hand, user: Redis) -> None:
    deadline = await set_for(user, b"k", 1) if flushed == "before the record" else await known(user, b"k", 1)
    await passed(user, deadline)
    if flushed == "after the touch":
        await hand.touch()
        await hand.hear()
    await user.flushdb()
    with pytest.raises(Fenced):
        await record(b"k")
    with pytest.raises(Fenced):
        await hand.touch()
    await hand.begin()
    await hand.sweep("walk")
    await hand.sweep()
    assert await hand.claimed() == []


# A touch decides what ended, its mark decides when that is known.


async def test_what_a_touch_expired_is_claimed_once_though_its_mark_comes_later(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1)
    await passed(user, deadline)
    await hand.touch()
    await hand.hear()
    while len(hand.inbox) > 1:  # the mark comes in a batch of its own
        await hand.step()
    await hand.handle()
    await hand.sweep()
    assert [(claim.id, claim.via) for claim in await hand.claimed()] == [(hand.id_of(b"k", deadline), Via.NOTIFICATION)]


async def test_a_key_seen_alive_that_expired_since_is_claimed_by_its_own_hint(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1, ("PEXPIRE", "k", LONG_MS))
    await passed(user, deadline)
    touched = await hand.touch()
    assert [sight[2] for sight in touched.sights] == [b"alive"]
    await user.pexpire(b"k", 1)
    await expired(user, b"k")
    await hand.handle()
    assert [claim.deadline_ms for claim in await hand.claimed()] == [deadline]
    assert await entry(user, b"k") is None


async def test_a_key_that_came_back_since_the_touch_is_claimed_and_recorded_again(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1)
    await expired(user, b"k")
    await hand.begin()
    await hand.touch()
    later = await set_for(user, b"k", LONG_MS)
    await hand.hear()
    await hand.step()  # the mark
    assert [claim.id for claim in await hand.claimed()] == [hand.id_of(b"k", deadline)]
    assert await entry(user, b"k") == later


async def test_what_was_touched_and_has_changed_since_is_not_resolved(hand: Hand, user: Redis) -> None:
    due = await known(user, b"due", 1, ("PEXPIRE", "due", LONG_MS))
    later = await known(user, b"later", LONG_MS)
    await passed(user, due)
    for seen in (GONE, ALIVE):
        another_entry = resolve(b"due", b"%d" % (due - 1), seen, b"1")
        clock_was_set_back = resolve(b"later", b"%d" % later, seen, b"1")
        await hand.send(hand.batch()._replace(operations=another_entry + clock_was_set_back))
    assert await hand.claimed() == []
    assert (await entry(user, b"due"), await entry(user, b"later")) == (due, later)


async def test_a_key_that_was_refreshed_or_made_permanent_is_not_announced(hand: Hand, user: Redis) -> None:
    await known(user, b"refreshed", 1, ("PEXPIRE", "refreshed", LONG_MS))
    await known(user, b"persisted", 1, ("PERSIST", "persisted"))
    last = await known(user, b"overwritten", 1, ("SET", "overwritten", ""))  # notifies only `set`, which is not heard
    await passed(user, last)
    await hand.sweep()
    assert await hand.claimed() == []
    assert await user.zrange(NAMES.deadlines, 0, -1) == [b"refreshed"]


async def test_no_key_is_taken_for_expired_while_redis_may_not_expire_it(hand: Hand, user: Redis) -> None:
    await hand.sweep()  # from now on Redis has the script, and knows whether it writes
    deadline = await known(user, b"k", 1)
    await user.client_pause(5_000, all=False)
    await passed(user, deadline)
    touch = asyncio.create_task(hand.touch())

    async def has_come() -> bool:
        return touch.done() or any("b" in client["flags"] for client in await user.client_list())

    await wait_until(has_come, "the touch to reach Redis")
    await user.client_unpause()
    await touch
    await hand.handle()
    await hand.sweep()
    assert [claim.id for claim in await hand.claimed()] == [hand.id_of(b"k", deadline)]


# A script that scans does what it does for each key that it finds.


async def test_a_scan_records_users_keys_that_have_a_deadline_and_forgets_those_that_have_none(
    hand: Hand, user: Redis
) -> None:
    deadlines = {
        key: await set_for(user, key, LONG_MS) for key in (b"share:new", b"share:\x00\xff", b"{expiry-bridge", b"a")
    }
    await known(user, b"share:persisted", LONG_MS, ("PERSIST", "share:persisted"))
    await known(user, b"share:replaced", LONG_MS, ("SET", "share:replaced", ""))
    await user.set(NAMES.key(b"own"), b"", px=LONG_MS)
    await user.set(b"share:without", b"")

    assert await hand.scan(b"share:*") == 5
    assert set(await user.zrange(NAMES.deadlines, 0, -1)) == {b"share:new", b"share:\x00\xff"}
    assert await hand.scan() == 7
    assert {key: await entry(user, key) for key in deadlines} == deadlines
    assert await user.zcard(NAMES.deadlines) == len(deadlines)


async def test_what_a_script_handles_before_it_scans_is_not_undone_by_what_it_finds(hand: Hand, user: Redis) -> None:
    first = await known(user, b"back", 1)
    await expired(user, b"back")
    await set_for(user, b"back", 1)
    await expired(user, b"back")
    await passed(user, await known(user, b"kept", 1, ("PEXPIRE", "kept", LONG_MS)))
    await hand.touch()
    back = await set_for(user, b"back", LONG_MS)
    await hand.hear()

    assert await hand.scan() == 2
    assert [claim.deadline_ms for claim in await hand.claimed(b"back")] == [first, None]
    assert await entry(user, b"back") == back
    assert await entry(user, b"kept") == await user.execute_command("PEXPIRETIME", b"kept")  # type: ignore[no-untyped-call]
    await hand.handle()
    assert len(await hand.claimed()) == 2


async def test_a_scan_that_finds_more_than_it_was_asked_for_records_and_forgets_it_all(hand: Hand, user: Redis) -> None:
    count = 9_000  # more words than Lua takes for one command
    for command, size in (("'SET', i, '', 'PX', 60000", count), ("'PERSIST', i", 0)):
        await user.eval(f"for i = 1, {count} do redis.call({command}) end", 0)
        whole = scan(b"0", 10 * count, MIB, b"*", NAMES.own_prefix)
        applied = await hand.send(hand.batch()._replace(operations=whole))
        assert applied is not None
        assert (applied.found, applied.next_part, applied.state.size) == (count, b"0", size)


# Ahead: what a script read is newer than the hints still on their way.


@pytest.mark.parametrize("deadline", ["another", "the same"])
async def test_an_older_deletion_does_not_undo_a_later_record(
    deadline: str, record: Record, hand: Hand, user: Redis
) -> None:
    first = await set_for(user, b"k", LONG_MS)
    await hand.handle()
    await user.delete(b"k")
    second = first if deadline == "the same" else first + 1
    await user.set(b"k", b"", pxat=second)
    await record(b"k")
    await hand.hear()
    await hand.step()  # the deletion
    assert await entry(user, b"k") == second  # else a crash now would lose its expiration


async def test_an_older_expiration_is_claimed_and_does_not_undo_a_later_record(
    record: Record, hand: Hand, user: Redis
) -> None:
    await set_for(user, b"k", LONG_MS)
    await hand.handle()
    await user.pexpire(b"k", 1)
    await expired(user, b"k")
    later = await set_for(user, b"k", LONG_MS)
    await record(b"k")
    await hand.hear()
    await hand.step()  # the nearer deadline
    await hand.step()  # its expiration, of a former life for all that is known
    assert await hand.claimed() == []
    await hand.handle()  # the mark of the record proves it
    assert [claim.deadline_ms for claim in await hand.claimed()] == [None]
    assert await entry(user, b"k") == later


async def test_an_expiration_behind_a_resolve_of_the_same_batch_does_not_undo_it(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"k", 1, ("PEXPIRE", "k", LONG_MS))
    await passed(user, deadline)
    came_back = resolve(b"k", b"%d" % deadline, ALIVE, b"1") + notified(b"k")  # it expired since the touch
    await hand.send(hand.batch()._replace(operations=came_back))
    assert [claim.deadline_ms for claim in await hand.claimed()] == [None]
    assert await entry(user, b"k") == await user.execute_command("PEXPIRETIME", b"k")  # type: ignore[no-untyped-call]


async def test_once_its_mark_is_back_a_key_is_no_longer_ahead(hand: Hand, user: Redis) -> None:
    await set_for(user, b"k", LONG_MS)
    await hand.handle()
    await user.delete(b"k")
    await hand.handle()
    assert await entry(user, b"k") is None


# One script is applied once, and only under its own fence.


async def test_a_batch_whose_reply_was_lost_is_not_applied_again(hand: Hand, user: Redis) -> None:
    deadline = await known(user, b"known", 1)
    await set_for(user, b"unknown", 1)
    await expired(user, b"known", b"unknown")
    await hand.hear()
    batch = hand.batch()
    assert await hand.ledger.apply(batch) is not None
    assert await hand.ledger.apply(batch) is None
    claims = await hand.claimed()
    assert Counter(claim.key for claim in claims) == {b"known": 1, b"unknown": 1}
    assert hand.id_of(b"known", deadline) in {claim.id for claim in claims}
    assert await user.hget(NAMES.lease, "depth") == b"2"


async def test_a_claim_that_arrives_after_its_epoch_is_refused(hand: Hand, user: Redis, server: RedisServer) -> None:
    deadline = await known(user, b"k", 1)
    await expired(user, b"k")
    await hand.hear()
    late = hand.batch()
    await lapse(user)
    async with Hand(server, instance="other") as other:
        await other.sweep()
        for old in (late, hand.batch()):
            with pytest.raises(Fenced):
                await hand.ledger.apply(old)
        with pytest.raises(Fenced):
            await hand.touch()
        await other.handle()
        assert [claim.id for claim in await other.claimed()] == [hand.id_of(b"k", deadline)]


async def test_each_epoch_of_one_process_has_a_fence_of_its_own(hand: Hand, user: Redis) -> None:
    await set_for(user, b"k", 1)
    await expired(user, b"k")
    await hand.hear()
    late = hand.batch()
    await hand.begin()
    with pytest.raises(Fenced):
        await hand.ledger.apply(late)
    assert await hand.claimed() == []


# A gap.


async def test_a_long_lived_key_that_vanished_in_a_gap_is_counted_not_announced(hand: Hand, user: Redis) -> None:
    for key in (b"deleted", b"alive"):
        await set_for(user, key, LONG_MS)
    await hand.handle()
    hand.end()
    await user.delete(b"deleted")
    await hand.begin()
    await hand.sweep("walk")
    assert await hand.claimed() == []
    assert await user.zrange(NAMES.deadlines, 0, -1) == [b"alive"]
    assert hand.gap.ambiguous == 1


async def test_an_overdue_key_that_is_deleted_after_the_gap_is_counted(hand: Hand, user: Redis) -> None:
    await known(user, b"k", 1)
    await expired(user, b"k")
    await set_for(user, b"k", LONG_MS)
    await hand.begin()
    await user.delete(b"k")
    await hand.sweep()
    assert await hand.claimed() == []
    assert hand.gap.ambiguous == 1


async def test_what_is_counted_in_a_gap_outlives_the_epoch_until_the_gap_is_closed(hand: Hand, user: Redis) -> None:
    await known(user, b"back", 1)
    await known(user, b"gone", 1)
    await expired(user, b"back", b"gone")
    await set_for(user, b"back", LONG_MS)
    await hand.begin()
    await hand.sweep()
    for _ in range(2):
        await hand.begin()
        assert (hand.gap.recovered, hand.gap.ambiguous) == (1, 1)
    await hand.close_gap()
    await hand.begin()
    assert (hand.gap.recovered, hand.gap.ambiguous) == (0, 0)


async def test_nothing_is_counted_as_waiting_where_nothing_is_left_though_the_lease_was_lost(
    hand: Hand, user: Redis
) -> None:
    await hand.close_gap()  # its record is in the outbox, and no expiration
    await user.delete(NAMES.lease)
    await hand.begin()
    await known(user, b"k", 1)
    await expired(user, b"k")
    await hand.handle()
    assert len(await hand.claimed()) == 1
    record, *claims = await hand.entries()
    assert await hand.settle([record]) >= len(claims) == 1
    assert await hand.settle(claims) == 0
    assert await user.hget(NAMES.lease, "depth") == b"0"


async def test_a_reply_carries_the_entry_that_is_in_the_outbox_where_there_is_room_for_it(
    hand: Hand, user: Redis
) -> None:
    await known(user, b"a", 1)
    await expired(user, b"a", b"unknown")
    await hand.hear()
    carried = await hand.send(hand.batch()._replace(room=1000))
    await known(user, b"b", 1)
    await expired(user, b"b")
    await hand.hear()
    too_large = await hand.send(hand.batch()._replace(room=10))
    assert carried is not None
    assert too_large is not None
    found, more = await hand.ledger.entries(b"0-0", 10)
    assert len(found) == 2
    assert not more
    assert (carried.wrote, carried.entry) == (True, found[0])
    assert (too_large.wrote, too_large.entry) == (True, None)


async def test_a_batch_that_claims_nothing_writes_no_entry(hand: Hand, user: Redis) -> None:
    await set_for(user, b"k", LONG_MS)
    await hand.hear()
    recorded = await hand.send(hand.batch()._replace(room=1000))
    assert recorded is not None
    assert (recorded.wrote, recorded.entry) == (False, None)


async def test_keys_that_are_not_bridged_any_more_are_forgotten_not_announced(
    hand: Hand, user: Redis, server: RedisServer
) -> None:
    for key in (b"kept:1", b"dropped:1", b"dropped:2"):
        await known(user, key, 1)
    await known(user, b"dropped:deleted", LONG_MS, ("DEL", "dropped:deleted"))
    await expired(user, b"kept:1", b"dropped:1")
    hand.end()
    async with Hand(server, keys=["kept:*"]) as narrowed:
        await expired(user, b"dropped:2")
        await narrowed.sweep("walk")
        await narrowed.sweep()
        assert [claim.key for claim in await narrowed.claimed()] == [b"kept:1"]
    assert await user.zcard(NAMES.deadlines) == 0
