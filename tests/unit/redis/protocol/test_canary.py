"""The canary's life, touch by touch."""

import pytest

from bridge.limits import EpochLimits
from bridge.redis.protocol.canary import LOOK, NOTHING, Canary

LIMITS = EpochLimits()
TTL_MS = LIMITS.canary_ttl_ms
NOW, LATER = 100.0, 100.0 + LIMITS.canary
"""When the first one was set, and when the next one is due."""


@pytest.fixture
def canary() -> Canary:
    """One that is out."""
    made = Canary(b"canary", LIMITS)
    touch(made, NOW, 1_000)
    assert made.deadline_ms == 1_000 + TTL_MS
    return made


def touch(canary: Canary, now: float, redis_ms: int, *, gone: bool = False) -> None:
    """A touch does what is to be done."""
    canary.touched(canary.order(now), now, redis_ms, void=canary.void, gone=gone)


def look(canary: Canary, *, gone: bool) -> None:
    assert canary.order(NOW) == LOOK
    touch(canary, NOW, 2_000, gone=gone)


def test_asking_what_to_do_changes_nothing() -> None:
    made = Canary(b"canary", LIMITS)
    assert [made.order(NOW) for _ in range(2)] == [TTL_MS, TTL_MS]
    assert made.deadline_ms is None


def test_one_that_was_heard_of_proves_that_notifications_come(canary: Canary) -> None:
    look(canary, gone=True)
    canary.ended(expired=True)
    assert canary.take_heard() == 1_000 + TTL_MS
    assert canary.take_heard() is None
    assert canary.marked()


def test_one_that_is_gone_and_was_not_heard_of_proves_that_they_do_not(canary: Canary) -> None:
    look(canary, gone=True)
    assert canary.take_heard() is None
    assert not canary.marked()


def test_one_that_somebody_took_away_proves_nothing(canary: Canary) -> None:
    look(canary, gone=True)
    canary.ended(expired=False)
    assert canary.take_heard() is None
    assert canary.marked()
    assert canary.void == 1


def test_one_that_is_still_there_is_looked_for_again(canary: Canary) -> None:
    look(canary, gone=False)
    assert canary.marked()
    look(canary, gone=True)
    assert not canary.marked()


def test_the_next_one_is_set_after_an_interval(canary: Canary) -> None:
    look(canary, gone=True)
    canary.ended(expired=True)
    assert canary.marked()
    assert canary.order(LATER - 0.1) == NOTHING
    assert canary.order(LATER) == TTL_MS
    touch(canary, LATER, 4_000)
    look(canary, gone=True)
    assert not canary.marked()  # what was heard of the last one does not count


def test_one_that_outlives_a_clock_that_was_set_back_is_left_to_its_fate(canary: Canary) -> None:
    touch(canary, NOW, 1_000 - 3_600_000)
    assert canary.deadline_ms is None
    assert canary.void == 1  # Redis was told of one that will not expire
    assert canary.order(NOW) == TTL_MS

    touch(canary, NOW, 1_000 - 3_600_000)
    assert canary.void == 0
    assert canary.order(NOW) == LOOK


def test_one_whose_ttl_was_changed_is_left_to_its_fate(canary: Canary) -> None:
    deadline_ms = 1_000 + TTL_MS
    touch(canary, NOW, deadline_ms + LIMITS.canary_late_ms)
    assert canary.order(NOW) == LOOK, "Redis may have expired nothing for a moment"
    touch(canary, NOW, deadline_ms + LIMITS.canary_late_ms + 1)
    assert (canary.void, canary.deadline_ms) == (1, None)
    assert canary.order(NOW) == TTL_MS


def test_one_that_was_left_and_ends_all_the_same_is_counted_once(canary: Canary) -> None:
    touch(canary, NOW, 1_000 - 3_600_000)
    canary.ended(expired=True)
    assert canary.void == 0


def test_only_one_that_expired_or_was_evicted_proves_the_way(canary: Canary) -> None:
    canary.ended(expired=False)
    canary.take_heard()
    assert not canary.proved
    for end in ({"expired": True}, {"expired": False, "evicted": True}):
        made = Canary(b"canary", LIMITS)
        touch(made, NOW, 1_000)
        made.ended(**end)
        made.take_heard()
        assert made.proved
        assert made.void == (not end["expired"]), "Redis has counted an expiration, or has not"


def test_many_in_a_row_that_were_deleted_are_doubtful_and_one_that_expired_is_enough(canary: Canary) -> None:
    for number in range(LIMITS.canary_voids):
        assert not canary.doubtful
        canary.ended(expired=False)
        canary.take_heard()
        touch(canary, NOW + (number + 1) * LIMITS.canary, 1_000)
    assert canary.doubtful
    canary.ended(expired=True)
    canary.take_heard()
    assert not canary.doubtful
