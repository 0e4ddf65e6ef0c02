"""Which values are captured when, and which of them are proven."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

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


def test_what_is_recorded_later_with_a_deadline_that_was_passed_is_captured_in_its_time() -> None:
    some = captures()
    some.listed([(b"crowd", NOW + 1000)], NOW + 1000, NOW + 1000)
    some.take(100, NOW)
    some.recorded([(b"late", NOW + 500), (b"later", NOW + 540), (b"latest", NOW + 600)], None)
    assert (some.cursor.deadline_ms, some.cursor.key) == (NOW + 1000, b"crowd")
    some.listed([], NOW + 999, NOW + 1000)
    assert some.take(100, NOW) == []
    assert some.due_in_ms(NOW) == 500 - LEAD / 2
    assert some.take(100, NOW + 490) == [(b"late", NOW + 500), (b"later", NOW + 540)]


def test_it_comes_before_a_crowd_that_is_listed_already() -> None:
    some = listed(captures(), (b"a", DEADLINE), (b"b", DEADLINE))
    some.recorded([(b"late", DEADLINE), (b"first", NOW + 1)], None)
    assert [key for key, _ in some.take(100, NOW)] == [b"first", b"late", b"a", b"b"]


def test_of_what_is_recorded_again_the_last_deadline_counts() -> None:
    some = held(b"later", b"same", b"listed", b"no")
    some.listed([], NOW + 1000, None)
    some.recorded([(b"later", NOW + 45), (b"same", NOW + 45), (b"listed", NOW + 45), (b"no", NOW + 45)], None)
    assert some.expired(b"same") == (), "what was held of it went with its entry"
    some.recorded([(b"later", NOW + 500), (b"same", DEADLINE)], None)
    some.listed([(b"listed", NOW + 2000)], NOW + 2000, None)
    assert some.take(100, NOW) == [(b"same", DEADLINE), (b"listed", NOW + 2000)]
    assert some.take(100, NOW + 480) == [(b"later", NOW + 500)]


def test_what_a_batch_does_not_tell_by_name_takes_the_list_back() -> None:
    some = listed(captures(), following_ms=NOW + 10_000)
    some.recorded([], NOW + 20)
    assert some.cursor.deadline_ms == NOW + 19
    assert some.due_in_ms(NOW) == 0


def test_nor_is_there_room_for_names_without_end() -> None:
    some = listed(captures(limits=EpochLimits(held_values=2)), (b"a", DEADLINE), following_ms=NOW + 10_000)
    some.recorded([(b"b", NOW + 30), (b"c", NOW + 20), (b"d", NOW + 10)], None)
    assert some.full
    assert some.cursor.deadline_ms == NOW + 9
    assert some.take(100, NOW) == [(b"b", NOW + 30), (b"a", DEADLINE)]


@dataclass(slots=True)
class Played:
    """A ledger with a crowd of 20,000 keys, and captures of it at 5,000 a second until its deadline."""

    others: int
    """Other keys that are recorded each 10 ms, with a TTL of a second. Every second of them is not wanted."""
    expired: int = 0
    """Of the other ones, those that are wanted."""
    captured: set[bytes] = field(default_factory=set)
    lists: int = 0

    def play(self) -> None:
        """In steps that list and capture, each followed by a batch, if one is due."""
        some, now, end = captures(limits=EpochLimits(listed_values=1000)), float(NOW), NOW + 6000
        ledger = [(end, b"crowd:%05d" % number) for number in range(20_000)]
        look_at = batch_at = now
        while now < end:
            if some.due_in_ms(now) == 0 or now >= look_at:
                if some.idle:
                    bounds, look_at = (some.crowds.bounds(now), now + 250) if now >= look_at else ((), look_at)
                    self.look(some, ledger, now, bounds)
                asked = some.take(250, now)
                some.captured(asked, [10] * len(asked), [], tracked=True)
                self.captured.update(key for key, _ in asked)
                now += len(asked) / 5
            now += 1
            if now >= batch_at:
                batch_at = now + 10
                self.batch(some, ledger, now)

    def look(self, some: Captures, ledger: list[tuple[int, bytes]], now: float, bounds: Sequence[int]) -> None:
        """As `upcoming.lua` does."""
        up_to_ms, cursor = some.up_to_ms(now), some.cursor
        first = bisect_right(ledger, (cursor.deadline_ms, cursor.key or b"\xff"))
        page = [(key, at) for at, key in ledger[first : first + 1000] if at <= up_to_ms]
        following = first + len(page)
        some.listed(page, up_to_ms, ledger[following][0] if following < len(ledger) else None)
        if bounds:
            some.crowds.counted([bisect_right(ledger, (bound, b"\xff")) - first for bound in bounds])
        self.lists += 1

    def batch(self, some: Captures, ledger: list[tuple[int, bytes]], now: float) -> None:
        """As `apply.lua` does."""
        at, listed_ms = int(now) + 1000, some.cursor.deadline_ms
        recorded = [(b"%sother:%d:%d" % (b"no" * (n % 2), at, n), at) for n in range(self.others)]
        for key, _ in recorded:
            insort(ledger, (at, key))
        if recorded and at <= listed_ms:
            some.recorded(recorded, None)
        elif recorded:
            some.recorded([], at)
        while ledger[0][0] < now:
            _, key = ledger.pop(0)
            some.expired(key)
            self.expired += key.startswith(b"other")


def test_a_crowd_gets_through_whatever_else_is_recorded() -> None:
    calm, busy = Played(0), Played(2)
    calm.play()
    busy.play()
    crowds = [sum(key.startswith(b"crowd") for key in played.captured) for played in (calm, busy)]
    assert crowds == [20_000, 20_000]
    assert len(busy.captured) - 20_000 > 0.9 * busy.expired > 150
    assert busy.lists < 2 * calm.lists + 10


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
