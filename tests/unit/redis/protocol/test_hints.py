"""From hints to operations, without a server: each rule of the ledger protocol that is decided on this side."""

from dataclasses import replace

import pytest

from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import GONE, MOVED, Applied, State, Touched
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.hints import (
    BATCH_BYTES,
    BATCH_KEYS,
    FOUND_KEYS,
    LOOK_LIMIT,
    Hints,
    MarkLostError,
    OwnKeyLostError,
)
from bridge.redis.protocol.migrated_keys import LOOK, SETTLED, TOLD_KEYS, UNTOLD, Claimed, Told
from bridge.redis.protocol.notifications import Kind, channels, missing_flags
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher
from bridge.redis.protocol.slots import slot_of
from tests.support.redis.operations import PLACED, alike, operations_in

NAMES = Names("expiry-bridge", 0)
MARK = NAMES.mark(7, 1)


def hints(patterns: str = "*") -> Hints:
    return Hints(NAMES, channels(0), matcher(patterns.split(",")))


def notified(target: Hints, *events: tuple[str, bytes]) -> None:
    target.stream.extend((b"__keyevent@0__:%b" % event.encode(), key) for event, key in events)


def applied(*ahead: bytes, emptied: bool = False) -> Applied:
    return Applied(State(0, None, 0, 0), 0, 0, 0, 0, emptied, ahead)


def touched(*seen: tuple[bytes, bytes, bytes, bytes]) -> Touched:
    return Touched(State(1_000_000, None, 0, 0), b"0", seen)


def test_hints_become_operations_in_stream_order_with_appearances_last_and_once() -> None:
    one = hints()
    notified(one, ("expire", b"a"), ("expired", b"b"), ("expire", b"a"), ("del", b"a"), ("persist", b"c"))

    assert one.batch() == [*op.expired(b"b"), *op.gone(b"a"), *op.appeared(b"a"), *op.appeared(b"c")]


def test_every_other_kind_of_end_forgets() -> None:
    one = hints()
    notified(one, ("evicted", b"a"), ("rename_from", b"b"), ("move_from", b"c"))

    assert one.batch() == [*op.gone(b"a"), *op.gone(b"b"), *op.gone(b"c")]


def test_a_key_that_is_ahead_is_claimed_without_its_entry_and_not_forgotten() -> None:
    one = hints()
    one.applied(MARK, applied(b"a"))
    notified(one, ("expired", b"a"), ("del", b"a"))
    assert one.batch() == []
    assert one.handled == 0
    notified(one, ("del", MARK))

    assert one.batch() == list(op.expired_ahead(b"a"))
    assert one.handled == 1


def test_a_mark_that_comes_back_before_an_earlier_one_ends_it() -> None:
    one = hints()
    one.applied(MARK, applied(b"a"))
    one.applied(NAMES.mark(7, 2), applied(b"b"))
    notified(one, ("expired", b"a"), ("del", NAMES.mark(7, 2)))

    with pytest.raises(MarkLostError, match="mute for a moment"):
        one.batch()
    assert one.handled == 0


def test_a_key_is_no_longer_ahead_once_the_mark_of_its_batch_has_come_back() -> None:
    one = hints()
    one.applied(MARK, applied(b"a"))
    notified(one, ("del", MARK), ("expired", b"a"))

    assert one.batch() == list(op.expired(b"a"))


def test_a_key_written_twice_stays_ahead_until_both_marks_are_back() -> None:
    one = hints()
    second = NAMES.mark(7, 2)
    one.applied(MARK, applied(b"a"))
    one.applied(second, applied(b"a"))
    notified(one, ("del", MARK), ("expired", b"a"), ("del", second), ("expired", b"a"))

    assert one.batch() == [*op.expired_ahead(b"a"), *op.expired(b"a")]


def test_what_a_touch_saw_is_resolved_where_its_mark_stands() -> None:
    one = hints()
    one.touched(MARK, touched((b"a", b"5", b"gone", b"1")), limit=10)
    notified(one, ("del", b"b"), ("del", MARK), ("del", b"a"))

    assert one.batch() == [*op.gone(b"b"), *op.resolve(b"a", b"5", GONE, b"1"), *op.gone(b"a")]


def test_what_was_claimed_by_a_hint_before_the_mark_is_not_resolved() -> None:
    one = hints()
    one.touched(MARK, touched((b"a", b"5", b"gone", b"1")), limit=10)
    notified(one, ("expired", b"a"), ("del", MARK))

    assert one.batch() == list(op.expired(b"a"))


def test_what_is_ahead_when_the_mark_comes_is_not_resolved() -> None:
    one = hints()
    one.touched(MARK, touched((b"a", b"5", b"gone", b"1")), limit=10)
    one.applied(NAMES.mark(7, 2), applied(b"a"))
    notified(one, ("del", MARK))

    assert one.batch() == []


def test_a_round_is_finished_when_its_mark_is_back_and_all_of_it_is_in_batches() -> None:
    one = hints()
    seen = [(b"%d" % n, b"5", b"gone", b"1") for n in range(BATCH_KEYS + 1)]
    one.touched(MARK, touched(*seen), limit=len(seen))
    assert one.finished_round() is None
    notified(one, ("del", MARK))

    assert len(one.batch()) == BATCH_KEYS * 5
    assert one.finished_round() is None
    assert len(one.batch()) == 5
    finished = one.finished_round()

    assert finished is not None
    assert not finished.complete
    assert one.round is None


def test_keys_that_are_not_asked_for_are_ignored_and_their_entries_forgotten() -> None:
    one = hints("share:*")
    one.touched(MARK, touched((b"other", b"5", b"gone", b"1")), limit=10)
    notified(one, ("expired", b"other"), ("expire", b"other"), ("expired", b"share:1"), ("del", MARK))

    assert one.batch() == [*op.expired(b"share:1"), *op.forget(b"other")]


def test_the_bridges_own_keys_are_never_treated_as_a_users() -> None:
    one = hints()
    notified(one, ("expire", NAMES.lease), ("del", Names("expiry-bridge", 3).mark(1, 1)), ("del", NAMES.dead))

    assert one.batch() == []


@pytest.mark.parametrize("key", [NAMES.lease, NAMES.deadlines, NAMES.outbox])
@pytest.mark.parametrize("event", ["del", "evicted", "rename_from", "move_from", "expired"])
def test_losing_a_vital_key_ends_the_epoch(key: bytes, event: str) -> None:
    one = hints()
    notified(one, (event, key))

    with pytest.raises(OwnKeyLostError, match=key.rpartition(b":")[2].decode()):
        one.batch()


def test_a_ledger_that_our_own_batch_emptied_is_not_lost() -> None:
    one = hints()
    one.applied(MARK, applied(emptied=True))
    notified(one, ("del", NAMES.deadlines))

    assert one.batch() == []

    notified(one, ("del", NAMES.deadlines))
    with pytest.raises(OwnKeyLostError):
        one.batch()


def test_a_batch_is_bounded_in_keys_in_bytes_and_in_hints_looked_at() -> None:
    one = hints("share:*")
    notified(one, *((("expired", b"share:%d" % n)) for n in range(BATCH_KEYS + 1)))
    assert len(one.batch()) == 2 * BATCH_KEYS
    assert one.batch() == list(op.expired(b"share:%d" % BATCH_KEYS))

    big = b"share:" + bytes(BATCH_BYTES // 2)
    notified(one, ("expired", big), ("expired", big), ("expired", big))
    assert len(one.batch()) == 4
    assert len(one.batch()) == 2

    notified(one, *(("expired", b"other") for _ in range(LOOK_LIMIT)), ("expired", b"share:1"))
    assert one.batch() == []
    assert one.batch() == list(op.expired(b"share:1"))


def test_what_a_scan_found_is_handled_like_an_appearance_when_there_is_room() -> None:
    one = hints()
    one.found.extend([b"a", b"b"])
    notified(one, ("expired", b"a"))

    assert one.batch() == [*op.expired(b"a"), *op.appeared(b"a"), *op.appeared(b"b")]
    assert not one.waiting


def test_the_next_part_of_a_scan_is_the_last_operation_of_a_batch_that_is_not_full() -> None:
    one = hints()
    one.scan(b"share:*")
    notified(one, ("expire", b"a"))
    scan = op.scan(b"0", FOUND_KEYS - 1, b"share:*", NAMES.own_prefix)
    assert one.batch() == [*op.appeared(b"a"), *scan]
    assert one.waiting

    one.applied(MARK, replace(applied(), next_part=b"160"))
    notified(one, *(("expired", b"%d" % n) for n in range(FOUND_KEYS)))
    assert op.scan(b"160", 1, b"share:*", NAMES.own_prefix)[0] not in one.batch()
    assert one.batch() == list(op.scan(b"160", FOUND_KEYS, b"share:*", NAMES.own_prefix))

    one.applied(MARK, replace(applied(), next_part=b"0"))
    assert one.batch() == []
    assert not one.waiting


def test_nothing_more_is_scanned_once_the_stream_has_ended() -> None:
    one = hints()
    one.scan(b"*")
    one.found.append(b"a")
    notified(one, ("expired", b"b"))
    one.scan_no_more()

    assert one.batch() == list(op.expired(b"b"))
    assert not one.waiting


def test_the_backlog_in_bytes_is_what_was_received_and_not_taken() -> None:
    one = hints()
    notified(one, ("expired", b"12345"), ("del", b"678"))
    one.batch()

    assert one.bytes_taken == 8


@pytest.mark.parametrize(
    ("flags", "missing"),
    [("", "Egxe"), ("Egxe", ""), ("AKE", ""), ("AK", "E"), ("Ex", "ge"), ("KEA", ""), ("gxE$", "e")],
)
def test_missing_notification_flags_are_found(flags: str, missing: str) -> None:
    assert missing_flags(flags) == missing


# A cluster


SINCE_MS, NOW_MS = 100, 1_000
"""When the epoch began to listen, and when what has moved is gone through."""


def clustered() -> tuple[Hints, Told]:
    told = Told(lambda key: key.startswith(b"away"))
    told.begin(Gap("start", 0, SINCE_MS))
    told.look(NOW_MS)
    return Hints(NAMES, channels(0), None, told=told), told


def placed(one: Hints, *keys: bytes, deadline_ms: int = 5) -> dict[bytes, bytes]:
    """Of entries that came from other nodes, by key, what Redis is told of their end."""
    one.moved.extend((key, deadline_ms) for key in keys)
    of_others = [operation for operation in operations_in(one.batch()) if alike(operation, PLACED)]
    return {key: word for _, key, _, word in of_others}


def test_of_a_key_that_came_from_another_node_redis_hears_whether_it_was_notified() -> None:
    one, _ = clustered()
    notified(one, ("expired", b"a"), ("del", b"b"), ("restore", b"c"), ("expire", b"d"))
    one.batch()
    found = placed(one, b"a", b"b", b"c", b"d", b"e")
    assert found == {b"a": SETTLED, b"b": SETTLED, b"c": SETTLED, b"d": UNTOLD, b"e": UNTOLD}


def test_a_deletion_in_a_slot_that_is_elsewhere_is_the_other_nodes() -> None:
    one, _ = clustered()
    notified(one, ("del", b"away-deleted"), ("expired", b"away-expired"), ("restore", b"away-restored"))
    one.batch()
    found = placed(one, b"away-deleted", b"away-expired", b"away-restored")
    assert found == {b"away-deleted": UNTOLD, b"away-expired": SETTLED, b"away-restored": SETTLED}


def test_what_had_to_be_notified_is_looked_at_twice() -> None:
    one, told = clustered()
    assert placed(one, b"a", b"b", deadline_ms=SINCE_MS) == {b"a": LOOK, b"b": LOOK}
    notified(one, ("expired", b"a"))
    one.batch()
    assert placed(one, b"a", b"b", deadline_ms=SINCE_MS) == {b"a": SETTLED, b"b": LOOK}  # at once: that is no proof
    told.look(NOW_MS)
    assert placed(one, b"a", b"b", deadline_ms=SINCE_MS) == {b"a": SETTLED, b"b": SETTLED}
    assert placed(one, b"c", deadline_ms=SINCE_MS - 1) == {b"c": UNTOLD}
    assert placed(one, b"c", deadline_ms=NOW_MS) == {b"c": UNTOLD}  # its notification will find the entry

    told.came({slot_of(b"d")}, 2 * SINCE_MS)  # so nobody listened to its slot before
    assert placed(one, b"d", deadline_ms=SINCE_MS) == {b"d": UNTOLD}
    assert placed(one, b"d", deadline_ms=2 * SINCE_MS) == {b"d": LOOK}


def test_what_was_told_of_a_key_is_forgotten_with_its_slot() -> None:
    one, told = clustered()
    notified(one, ("del", b"a"), ("del", b"b"))
    one.batch()
    told.went({slot_of(b"a")})
    assert placed(one, b"a", b"b") == {b"a": UNTOLD, b"b": SETTLED}

    assert placed(one, b"c", deadline_ms=SINCE_MS) == {b"c": LOOK}
    told.went({slot_of(b"c")})
    told.came({slot_of(b"c")}, 2 * SINCE_MS)
    told.look(NOW_MS)
    assert placed(one, b"c", deadline_ms=SINCE_MS) == {b"c": UNTOLD}


def test_what_a_former_epoch_has_claimed_when_the_deadline_was_past_is_not_claimed_again() -> None:
    claimed = Claimed()
    for since_ms, already in ((SINCE_MS, False), (10 * SINCE_MS, True)):
        told = Told(lambda _: False, claimed)
        told.begin(Gap("start", 0, since_ms))
        told.look(NOW_MS)
        one = Hints(NAMES, channels(0), None, told=told)
        assert (placed(one, b"a", deadline_ms=5) == {b"a": SETTLED}) is already
        assert placed(one, b"a", deadline_ms=2 * SINCE_MS) != {b"a": SETTLED}, "of a later life"
        notified(one, ("expired", b"a"), ("del", b"b"))
        one.batch()
        assert not claimed.since(b"a", 5) or already
        one.applied(MARK, replace(applied(), state=State(1000 * SINCE_MS, None, 0, 0)))
        assert claimed.since(b"a", 5)
        assert not claimed.since(b"b", 5)


def test_what_the_same_batch_tells_of_such_a_key_counts_and_goes_before() -> None:
    one, _ = clustered()
    notified(one, ("expired", b"a"), ("restore", b"b"))
    one.moved.extend([(b"a", 5), (b"b", 6)])
    assert one.batch() == [
        *op.expired(b"a"),
        *op.appeared(b"b"),
        *op.placed(b"a", 5, SETTLED),
        *op.placed(b"b", 6, SETTLED),
    ]


def test_only_the_last_keys_are_remembered() -> None:
    one, _ = clustered()
    notified(one, *[("del", b"%d" % number) for number in range(TOLD_KEYS + 1)])
    while one.stream:
        one.batch()
    assert placed(one, b"0", b"1") == {b"0": UNTOLD, b"1": SETTLED}


def test_of_slots_that_never_moved_nothing_is_remembered_when_the_gap_is_closed() -> None:
    told = Told(lambda key: key.startswith(b"away"))
    gap = Gap("start", 0, SINCE_MS)
    told.begin(gap)
    told.look(NOW_MS)
    gap.close()
    told.came({slot_of(b"came")}, SINCE_MS)
    for key in (b"a", b"came", b"away"):
        told.ended(key, Kind.EXPIRED)
    assert [told.of(key, 5) for key in (b"a", b"came", b"away")] == [UNTOLD, SETTLED, SETTLED]


def test_a_key_that_a_touch_found_moved_is_resolved_once_another_node_has_it() -> None:
    one, told = clustered()
    told.begin(Gap("start", 0, 0))  # it is closed
    states = {b"away": b"moved", b"away-gone": b"gone", b"here": b"moved", b"here-gone": b"gone"}
    one.touched(MARK, touched(*((key, b"1", state, b"1") for key, state in states.items())), 10)
    notified(one, ("del", MARK))

    # What is on its way is said to be elsewhere before it is, and to be here too early.
    operations = one.batch()
    assert operations == [*op.resolve(b"away", b"1", MOVED, b"1"), *op.resolve(b"here-gone", b"1", GONE, b"1")]
    finished = one.finished_round()
    assert finished is not None
    assert finished.stuck == 2
    assert placed(one, b"away") == {b"away": LOOK}


def test_while_the_gap_is_open_what_is_on_its_way_does_not_keep_it_open() -> None:
    one, _ = clustered()
    one.touched(MARK, touched((b"here", b"1", b"moved", b"1"), (b"away-gone", b"1", b"gone", b"1")), 10)
    notified(one, ("del", MARK))
    assert one.batch() == list(op.resolve(b"here", b"1", MOVED, b"1"))


def test_another_ledger_that_appears_is_a_stray_and_what_is_no_ledger_is_none() -> None:
    one, _ = clustered()
    own, other = NAMES.lease, NAMES.of(7).outbox
    notified(one, ("restore", own), ("restore", other), ("restore", NAMES.members), ("restore", NAMES.of(8).canary))
    one.batch()
    assert one.strays == {7}

    alone = hints()
    notified(alone, ("restore", other))
    alone.batch()
    assert alone.strays == set()
