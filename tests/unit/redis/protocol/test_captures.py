"""Which values are captured when, and which of them are proven."""

from bridge.limits import EpochLimits
from bridge.redis.protocol.captures import UNREAD, Captures, Former, Wanted
from bridge.redis.protocol.operations import proven

NOW = 1_000_000
LEAD = 50
DEADLINE = NOW + 40


def captures(former: Former | None = None, limits: EpochLimits | None = None) -> Captures:
    """Of all keys but those that begin with `no`."""
    return Captures(Wanted(lambda key: not key.startswith(b"no"), LEAD), limits or EpochLimits(), former)


def listed(some: Captures, *entries: tuple[bytes, int], following_ms: int | None = None) -> Captures:
    """Those follow in the ledger."""
    some.listed(entries, some.up_to_ms(NOW), following_ms)
    return some


def held(*keys: bytes) -> Captures:
    """These are captured, tracked."""
    some = listed(captures(), *((key, DEADLINE) for key in keys))
    asked = some.take(100, NOW)
    some.captured(asked, [10] * len(asked), [], tracked=True)
    return some


# When


def test_at_first_the_ledger_is_looked_at_at_once() -> None:
    assert captures().due_in_ms(NOW) == 0


def test_a_capture_is_due_half_a_lead_before_the_first_deadline() -> None:
    assert listed(captures(), following_ms=NOW + 100).due_in_ms(NOW) == 100 - LEAD / 2


def test_it_takes_all_up_to_the_lead() -> None:
    assert captures().up_to_ms(NOW) == NOW + LEAD


def test_nothing_is_due_where_the_ledger_has_nothing_more() -> None:
    assert listed(captures()).due_in_ms(NOW) is None


def test_what_is_recorded_later_with_a_deadline_that_was_passed_takes_the_list_back() -> None:
    some = listed(captures(), following_ms=NOW + 10_000)
    some.recorded(NOW + 20)
    assert some.cursor.deadline_ms == NOW + 19
    assert some.due_in_ms(NOW) == 0


def test_what_is_recorded_behind_it_is_due_in_its_time() -> None:
    some = listed(captures())
    some.recorded(NOW + 500)
    assert some.due_in_ms(NOW) == 500 - LEAD / 2


def test_a_page_that_is_full_is_gone_on_with_behind_its_last_entry() -> None:
    some = listed(captures(), (b"a", DEADLINE), (b"b", DEADLINE), following_ms=DEADLINE)
    assert (some.cursor.deadline_ms, some.cursor.key) == (DEADLINE, b"b")


def test_a_page_of_a_crowd_is_gone_on_with_however_late_the_next_one_is_wanted() -> None:
    some = captures()
    some.listed([(b"a", DEADLINE)], DEADLINE, DEADLINE)
    some.listed([], DEADLINE - 1, DEADLINE)
    assert (some.cursor.deadline_ms, some.cursor.key) == (DEADLINE, b"a")
    some.listed([(b"b", DEADLINE)], DEADLINE, None)
    assert (some.cursor.deadline_ms, some.cursor.key) == (DEADLINE, b"")


def test_what_is_left_of_a_crowd_with_one_deadline_is_still_begun_early() -> None:
    some = captures(limits=EpochLimits(capture_rate=1000))
    bounds = some.crowds.bounds(NOW)
    some.listed([(b"a", bounds[-1])], bounds[-1], bounds[-1])
    some.captured(some.take(100, NOW), [10], [], tracked=True)
    some.crowds.counted([0] * 33 + [100_000])
    assert some.due_in_ms(NOW) == 0


def test_a_crowd_is_begun_so_early_that_it_is_through_in_time() -> None:
    limits = EpochLimits(capture_rate=1000)
    some = listed(captures(limits=limits), following_ms=NOW + 5000)
    bounds = some.crowds.bounds(NOW)
    some.crowds.counted([2000 if bound >= NOW + 5000 else 0 for bound in bounds])
    due = some.due_in_ms(NOW)
    assert due is not None
    assert due <= 3000
    assert some.up_to_ms(NOW + due) >= NOW + 5000


def test_what_comes_steadily_is_no_crowd() -> None:
    some = listed(captures(), following_ms=NOW + 5000)
    bounds = some.crowds.bounds(NOW)
    some.crowds.counted([(bound - NOW) // 100 * 50 for bound in bounds if bound <= NOW + 2000] + [1000] * 14)
    assert some.due_in_ms(NOW) == 5000 - LEAD / 2


def test_the_pace_is_measured() -> None:
    some = captures()
    for _ in range(100):
        some.crowds.took(100, 1000)
    some.crowds.bounds(NOW)
    some.crowds.counted([0] * 9 + [200] * 25)  # in a second, and two are needed
    assert some.crowds.begin_ms(0) < NOW


# What is captured


def test_a_key_is_captured_once_and_only_if_its_value_is_wanted() -> None:
    some = listed(captures(), (b"a", DEADLINE), (b"no", DEADLINE), following_ms=DEADLINE)
    listed(some, (b"a", DEADLINE), (b"b", DEADLINE))
    assert some.take(100, NOW) == [(b"a", DEADLINE), (b"b", DEADLINE)]
    assert some.idle


def test_what_is_past_its_deadline_is_not_captured() -> None:
    some = listed(captures(), (b"a", NOW - 1), (b"b", DEADLINE))
    assert some.take(100, NOW) == [(b"b", DEADLINE)]
    assert len(some) == 1


def test_what_one_script_did_not_look_at_comes_first_in_the_next() -> None:
    some = listed(captures(), (b"a", DEADLINE), (b"b", DEADLINE), (b"c", DEADLINE))
    some.captured(some.take(2, NOW), [10], [], tracked=True)
    assert [key for key, _ in some.take(100, NOW)] == [b"b", b"c"]


def test_a_key_whose_deadline_is_another_one_is_forgotten() -> None:
    some = listed(captures(), (b"a", DEADLINE))
    some.captured(some.take(100, NOW), [UNREAD], [], tracked=True)
    assert len(some) == 0
    assert some.expired(b"a") == ()


# What is proven


def test_a_value_that_was_not_written_since_is_proven() -> None:
    assert held(b"a").expired(b"a") == proven(b"a", DEADLINE)


def test_it_is_proven_once() -> None:
    some = held(b"a")
    some.expired(b"a")
    assert some.expired(b"a") == ()


def test_nothing_is_proven_that_was_captured_untracked_or_may_change_by_itself() -> None:
    some = listed(captures(), (b"a", DEADLINE), (b"b", DEADLINE))
    some.captured(some.take(100, NOW), [10, 10], [1], tracked=True)
    assert some.expired(b"b") == ()
    some = listed(captures(), (b"a", DEADLINE))
    some.captured(some.take(100, NOW), [10], [], tracked=False)
    assert some.expired(b"a") == ()


def test_a_write_takes_the_proof_until_the_value_was_captured_again() -> None:
    some = held(b"a", b"b")
    some.changed(b"a")
    assert some.due_in_ms(NOW) == 0
    asked = some.take(100, NOW)
    assert asked == [(b"a", DEADLINE)]
    some.captured([], [], [], tracked=True)  # it was asked for, and no more
    assert some.expired(b"b") == proven(b"b", DEADLINE)
    some.captured(asked, [10], [], tracked=True)
    assert some.expired(b"a") == proven(b"a", DEADLINE)


def test_a_write_that_could_not_be_captured_in_time_leaves_no_proof() -> None:
    some = held(b"a")
    some.changed(b"a")
    assert some.take(100, DEADLINE + 1) == []
    assert some.expired(b"a") == ()


def test_when_the_connection_is_lost_nothing_is_proven_until_all_is_captured_again() -> None:
    some = held(b"a", b"b")
    some.lost()
    assert some.take(1, NOW) == [(b"a", DEADLINE)]
    some.captured([(b"a", DEADLINE)], [10], [], tracked=True)
    assert some.expired(b"b") == ()
    assert some.expired(b"a") == proven(b"a", DEADLINE)


def test_a_key_that_is_gone_has_no_proof() -> None:
    some = held(b"a")
    some.gone(b"a")
    assert some.expired(b"a") == ()


# What is bounded


def test_a_batch_knows_how_many_bytes_of_values_it_claims() -> None:
    some = held(b"a", b"b")
    some.expired(b"a")
    some.swept(b"b")
    some.expired(b"unknown")
    assert some.claiming == 20


def test_of_values_that_a_former_epoch_holds_the_mean_is_reckoned_with() -> None:
    some = captures(Former(2, 1000))
    for key in (b"a", b"b", b"c"):
        some.swept(key)
    assert some.claiming == 1000


def test_no_more_is_listed_than_may_be_known_of() -> None:
    some = listed(
        captures(limits=EpochLimits(held_values=2)), (b"a", DEADLINE), (b"b", DEADLINE), following_ms=DEADLINE
    )
    some.captured(some.take(100, NOW), [10, 10], [], tracked=True)
    assert some.due_in_ms(NOW) is None


def test_long_after_its_deadline_a_value_counts_only_with_its_bytes() -> None:
    some = held(b"a")
    some.prune(DEADLINE + 1)
    assert len(some) == 1
    some.prune(DEADLINE + 10**6)
    assert len(some) == 0
    assert some.expired(b"a") == ()
    assert some.claiming == 10
