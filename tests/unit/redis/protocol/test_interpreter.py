"""From hints to operations, without a server: each rule of the ledger protocol that is decided on this side."""

import pytest

from bridge.limits import EpochLimits, WireLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import GONE, Applied, State, Touched
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.interpreter import Interpreter, OwnKeyLostError, Scope
from bridge.redis.protocol.marks import MarkLostError, Marks, Purpose, Round
from bridge.redis.protocol.notifications import channels, missing_flags
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher

NAMES = Names("expiry-bridge", 0)
MARK = NAMES.mark(7, 1)


LIMITS = EpochLimits()


def interpreter(patterns: str = "*") -> Interpreter:
    scope = Scope(NAMES, channels(0), matcher(patterns.split(",")), LIMITS)
    return Interpreter(scope, Inbox(WireLimits()), Marks())


def notified(target: Interpreter, *events: tuple[str, bytes]) -> None:
    target.inbox.put([(b"__keyevent@0__:%b" % event.encode(), key) for event, key in events])


def touch(target: Interpreter, *seen: tuple[bytes, bytes, bytes, bytes], complete: bool = True) -> None:
    """A touch saw this (of all that was due, if `complete`), and has left MARK."""
    touched = Touched(State(1_000_000, None, 0, 0), b"0", seen, complete)
    target.marks.touch_left(Round.of(MARK, touched, Purpose(), 0.0))


def applied(*ahead: bytes, emptied: bool = False) -> Applied:
    return Applied(State(0, None, 0, 0), 0, 0, 0, 0, emptied, ahead)


def test_hints_become_operations_in_stream_order_with_appearances_last_and_once() -> None:
    one = interpreter()
    notified(one, ("expire", b"a"), ("expired", b"b"), ("expire", b"a"), ("del", b"a"), ("persist", b"c"))

    assert one.batch() == [*op.expired(b"b"), *op.gone(b"a"), *op.appeared(b"a"), *op.appeared(b"c")]


def test_every_other_kind_of_end_forgets() -> None:
    one = interpreter()
    notified(one, ("evicted", b"a"), ("rename_from", b"b"), ("move_from", b"c"))

    assert one.batch() == [*op.gone(b"a"), *op.gone(b"b"), *op.gone(b"c")]


def test_a_key_that_is_ahead_is_claimed_without_its_entry_and_not_forgotten() -> None:
    one = interpreter()
    one.applied(MARK, applied(b"a"))
    notified(one, ("expired", b"a"), ("del", b"a"))
    assert one.batch() == []
    assert one.marks.handled == 0
    notified(one, ("del", MARK))

    assert one.batch() == list(op.expired_ahead(b"a"))
    assert one.marks.handled == 1


def test_a_mark_that_comes_back_before_an_earlier_one_ends_it() -> None:
    one = interpreter()
    one.applied(MARK, applied(b"a"))
    one.applied(NAMES.mark(7, 2), applied(b"b"))
    notified(one, ("expired", b"a"), ("del", NAMES.mark(7, 2)))

    with pytest.raises(MarkLostError, match="mute for a moment"):
        one.batch()
    assert one.marks.handled == 0


def test_a_key_is_no_longer_ahead_once_the_mark_of_its_batch_has_come_back() -> None:
    one = interpreter()
    one.applied(MARK, applied(b"a"))
    notified(one, ("del", MARK), ("expired", b"a"))

    assert one.batch() == list(op.expired(b"a"))


def test_a_key_written_twice_stays_ahead_until_both_marks_are_back() -> None:
    one = interpreter()
    second = NAMES.mark(7, 2)
    one.applied(MARK, applied(b"a"))
    one.applied(second, applied(b"a"))
    notified(one, ("del", MARK), ("expired", b"a"), ("del", second), ("expired", b"a"))

    assert one.batch() == [*op.expired_ahead(b"a"), *op.expired(b"a")]


def test_what_a_touch_saw_is_resolved_where_its_mark_stands() -> None:
    one = interpreter()
    touch(one, (b"a", b"5", b"gone", b"1"))
    notified(one, ("del", b"b"), ("del", MARK), ("del", b"a"))

    assert one.batch() == [*op.gone(b"b"), *op.resolve(b"a", b"5", GONE, b"1"), *op.gone(b"a")]


def test_what_was_claimed_by_a_hint_before_the_mark_is_not_resolved() -> None:
    one = interpreter()
    touch(one, (b"a", b"5", b"gone", b"1"))
    notified(one, ("expired", b"a"), ("del", MARK))

    assert one.batch() == list(op.expired(b"a"))


def test_what_is_ahead_when_the_mark_comes_is_not_resolved() -> None:
    one = interpreter()
    touch(one, (b"a", b"5", b"gone", b"1"))
    one.applied(NAMES.mark(7, 2), applied(b"a"))
    notified(one, ("del", MARK))

    assert one.batch() == []


def test_a_round_is_finished_when_its_mark_is_back_and_all_of_it_is_in_batches() -> None:
    one = interpreter()
    seen = [(b"%d" % n, b"5", b"gone", b"1") for n in range(LIMITS.batch_keys + 1)]
    touch(one, *seen, complete=False)
    assert one.marks.finished_round() is None
    notified(one, ("del", MARK))

    assert len(one.batch()) == LIMITS.batch_keys * 5
    assert one.marks.finished_round() is None
    assert len(one.batch()) == 5
    finished = one.marks.finished_round()

    assert finished is not None
    assert not finished.complete
    assert one.marks.round is None


def test_keys_that_are_not_asked_for_are_ignored_and_their_entries_forgotten() -> None:
    one = interpreter("share:*")
    touch(one, (b"other", b"5", b"gone", b"1"))
    notified(one, ("expired", b"other"), ("expire", b"other"), ("expired", b"share:1"), ("del", MARK))

    assert one.batch() == [*op.expired(b"share:1"), *op.forget(b"other")]


def test_the_bridges_own_keys_are_never_treated_as_a_users() -> None:
    one = interpreter()
    notified(one, ("expire", NAMES.lease), ("del", Names("expiry-bridge", 3).mark(1, 1)), ("del", NAMES.dead))

    assert one.batch() == []


@pytest.mark.parametrize("key", [NAMES.lease, NAMES.deadlines, NAMES.outbox])
@pytest.mark.parametrize("event", ["del", "evicted", "rename_from", "move_from", "expired"])
def test_losing_a_vital_key_ends_the_epoch(key: bytes, event: str) -> None:
    one = interpreter()
    notified(one, (event, key))

    with pytest.raises(OwnKeyLostError, match=key.rpartition(b":")[2].decode()):
        one.batch()


def test_a_ledger_that_our_own_batch_emptied_is_not_lost() -> None:
    one = interpreter()
    one.applied(MARK, applied(emptied=True))
    notified(one, ("del", NAMES.deadlines))

    assert one.batch() == []

    notified(one, ("del", NAMES.deadlines))
    with pytest.raises(OwnKeyLostError):
        one.batch()


def test_a_batch_is_bounded_in_keys_in_bytes_and_in_hints_looked_at() -> None:
    one = interpreter("share:*")
    notified(one, *((("expired", b"share:%d" % n)) for n in range(LIMITS.batch_keys + 1)))
    assert len(one.batch()) == 2 * LIMITS.batch_keys
    assert one.batch() == list(op.expired(b"share:%d" % LIMITS.batch_keys))

    big = b"share:" + bytes(LIMITS.batch_bytes // 2)
    notified(one, ("expired", big), ("expired", big), ("expired", big))
    assert len(one.batch()) == 4
    assert len(one.batch(1)) == 2

    notified(one, *(("expired", b"other") for _ in range(LIMITS.look_hints)), ("expired", b"share:1"))
    assert one.batch() == []
    assert one.batch() == list(op.expired(b"share:1"))


def test_what_a_scan_found_is_handled_like_an_appearance_when_there_is_room() -> None:
    one = interpreter()
    one.findings.add([b"a", b"b"])
    notified(one, ("expired", b"a"))

    assert one.batch() == [*op.expired(b"a"), *op.appeared(b"a"), *op.appeared(b"b")]
    assert not one.waiting


def test_the_next_part_of_a_scan_is_the_last_operation_of_a_batch_and_no_rate_of_hints_keeps_it_from_its_end() -> None:
    one = interpreter()
    one.findings.begin(b"share:*")
    notified(one, ("expire", b"a"))
    scan = op.scan(b"0", LIMITS.found_keys - 1, LIMITS.batch_bytes - 1, b"share:*", NAMES.own_prefix)
    assert one.batch() == [*op.appeared(b"a"), *scan]
    assert one.findings.waiting

    one.applied(MARK, applied()._replace(next_part=b"160"))
    notified(one, *(("expired", b"%03d" % n) for n in range(LIMITS.batch_keys)))
    left = LIMITS.batch_bytes - 3 * LIMITS.batch_keys
    least = op.scan(b"160", LIMITS.found_keys // 5, left, b"share:*", NAMES.own_prefix)
    assert one.batch()[2 * LIMITS.batch_keys :] == [*least]
    notified(one, ("expired", b"a"), ("expired", b"b" * 9))
    least = op.scan(b"160", LIMITS.found_keys - 2, 2, b"share:*", NAMES.own_prefix)
    assert one.batch(10)[4:] == [*least]
    notified(one, ("expired", b"a"))
    assert one.batch(None, 0) == [*op.expired(b"a")]
    assert one.batch() == list(op.scan(b"160", LIMITS.found_keys, LIMITS.batch_bytes, b"share:*", NAMES.own_prefix))

    one.applied(MARK, applied()._replace(next_part=b"0"))
    assert one.batch() == []
    assert not one.waiting


def test_nothing_more_is_scanned_once_the_stream_has_ended() -> None:
    one = interpreter()
    one.findings.begin(b"*")
    one.findings.add([b"a"])
    notified(one, ("expired", b"b"))
    one.findings.drop()

    assert one.batch() == list(op.expired(b"b"))
    assert not one.waiting


@pytest.mark.parametrize(
    ("flags", "missing"),
    [("", "Egxe"), ("Egxe", ""), ("AKE", ""), ("AK", "E"), ("Ex", "ge"), ("KEA", ""), ("gxE$", "e")],
)
def test_missing_notification_flags_are_found(flags: str, missing: str) -> None:
    assert missing_flags(flags) == missing


def test_hints_may_wait_unless_something_waits_for_what_one_of_them_decides() -> None:
    one, patient = interpreter(), list[bool]()

    def look() -> None:
        patient.append(one.patient)

    notified(one, ("expire", b"a"), ("del", b"b"))
    look()
    one.batch()
    touch(one)
    look()
    notified(one, ("del", MARK))
    one.batch()
    one.marks.finished_round()
    look()
    one.applied(MARK, applied(b"a"))
    notified(one, ("expired", b"a"))
    one.batch()
    look()  # held until the mark is back
    assert patient == [True, False, True, False]
