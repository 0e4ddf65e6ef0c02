"""The canary's life, touch by touch."""

import pytest

from bridge.clock import SystemClock
from bridge.redis.protocol.canary import INTERVAL, LOOK, TTL_MS, Canary


class Clock(SystemClock):
    """Stands still unless the test moves it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def canary(clock: Clock) -> Canary:
    """One that is out."""
    made = Canary(b"canary", clock)
    order = made.order()
    assert order == TTL_MS
    made.touched(order, 0, 1_000, gone=False)
    assert made.deadline_ms == 1_000 + TTL_MS
    return made


def look(canary: Canary, *, gone: bool) -> None:
    order = canary.order()
    assert order == LOOK
    canary.touched(order, canary.void, 2_000, gone=gone)


def test_one_that_was_heard_of_proves_that_notifications_come(canary: Canary) -> None:
    look(canary, gone=True)
    canary.ended(expired=True)
    assert canary.marked()


def test_one_that_is_gone_and_was_not_heard_of_proves_that_they_do_not(canary: Canary) -> None:
    look(canary, gone=True)
    assert not canary.marked()


def test_one_that_somebody_took_away_proves_nothing(canary: Canary) -> None:
    look(canary, gone=True)
    canary.ended(expired=False)
    assert canary.marked()
    assert canary.void == 1


def test_one_that_is_still_there_is_looked_for_again(canary: Canary) -> None:
    look(canary, gone=False)
    assert canary.marked()
    look(canary, gone=True)
    assert not canary.marked()


def test_the_next_one_is_set_after_an_interval(canary: Canary, clock: Clock) -> None:
    look(canary, gone=True)
    canary.ended(expired=True)
    assert canary.marked()
    assert canary.order() == ""
    clock.now += INTERVAL
    assert canary.order() == TTL_MS
    canary.touched(TTL_MS, 0, 4_000, gone=False)
    look(canary, gone=True)
    assert not canary.marked()  # what was heard of the last one does not count
