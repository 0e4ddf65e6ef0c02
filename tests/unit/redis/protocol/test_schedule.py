"""When to touch next: on Redis's clock, never early, and at least once a heartbeat."""

import pytest

from bridge.clock import SystemClock
from bridge.redis.protocol.calls import State
from bridge.redis.protocol.schedule import HEARTBEAT, RETRY, Schedule


class StillClock(SystemClock):
    """Goes on only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def schedule(lowest_ms: int | None, redis_us: int = 5_000_000) -> tuple[Schedule, StillClock]:
    clock = StillClock()
    made = Schedule(clock)
    made.learn(State(redis_us, lowest_ms, 0, 0))
    return made, clock


def test_a_deadline_is_due_in_the_millisecond_after_it() -> None:
    made, clock = schedule(lowest_ms=5_100)

    assert made.due_in() == pytest.approx(0.101)
    clock.now += 0.101
    assert made.due_in() == pytest.approx(0)


def test_redis_clock_counts_not_this_machines() -> None:
    made, clock = schedule(lowest_ms=None)
    clock.now += 2
    made.learn(State(60_000_000, 60_500, 0, 0))

    assert made.due_in() == pytest.approx(0.501)
    assert made.redis_ms() == pytest.approx(60_000)


def test_redis_clock_goes_on_from_where_it_was_asked_for() -> None:
    clock = StillClock()
    made = Schedule(clock)

    made.set_clock(60_000)
    clock.now += 2

    assert made.redis_ms() == pytest.approx(62_000)


def test_an_empty_ledger_is_never_due() -> None:
    made, _ = schedule(lowest_ms=None)

    assert made.due_in() is None


def test_a_heartbeat_is_due_at_once_and_then_after_each_touch() -> None:
    made, clock = schedule(lowest_ms=None)
    assert made.heartbeat_in() <= 0

    made.touched()

    assert made.heartbeat_in() == pytest.approx(HEARTBEAT)
    clock.now += HEARTBEAT
    assert made.heartbeat_in() <= 0


def test_what_a_touch_could_not_resolve_is_not_touched_again_in_a_spin() -> None:
    made, clock = schedule(lowest_ms=4_000)
    due = made.due_in()
    assert due is not None
    assert due < 0

    made.hold_back(RETRY)

    assert made.due_in() == pytest.approx(RETRY)
    clock.now += RETRY
    due = made.due_in()
    assert due is not None
    assert due <= 0
