"""When to touch next: on Redis's clock, never early, and at least once a heartbeat."""

import pytest

from bridge.clock import SystemClock
from bridge.limits import EpochLimits
from bridge.redis.protocol.calls import State
from bridge.redis.protocol.marks import Purpose, Round
from bridge.redis.protocol.schedule import RedisClock, Schedule


class StillClock(SystemClock):
    """Goes on only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


LIMITS = EpochLimits()


def schedule(lowest_ms: int | None, redis_us: int = 5_000_000) -> tuple[Schedule, StillClock]:
    clock = StillClock()
    made = Schedule(clock, RedisClock(clock), LIMITS)
    made.learn(State(redis_us, lowest_ms, 0, 0))
    return made, clock


def test_a_deadline_is_due_in_the_millisecond_after_it() -> None:
    made, clock = schedule(lowest_ms=5_100)

    assert made.due_in() == pytest.approx(0.101)
    clock.now += 0.101
    assert made.due_in() == pytest.approx(0)


def test_redis_clock_counts_not_this_machines() -> None:
    clock = StillClock()
    redis_clock = RedisClock(clock)
    made = Schedule(clock, redis_clock, LIMITS)
    clock.now += 2
    made.learn(State(60_000_000, 60_500, 0, 0))

    assert made.due_in() == pytest.approx(0.501)
    assert redis_clock.now_ms() == pytest.approx(60_000)


def test_redis_clock_goes_on_from_where_it_was_asked_for() -> None:
    clock = StillClock()
    made = RedisClock(clock)

    made.set(60_000)
    clock.now += 2

    assert made.now_ms() == pytest.approx(62_000)


def test_an_empty_ledger_is_never_due() -> None:
    made, _ = schedule(lowest_ms=None)

    assert made.due_in() is None


def test_a_heartbeat_is_due_at_once_and_then_after_each_touch() -> None:
    made, clock = schedule(lowest_ms=None)
    assert made.heartbeat_in() <= 0

    made.touched()

    assert made.heartbeat_in() == pytest.approx(LIMITS.heartbeat)
    clock.now += LIMITS.heartbeat
    assert made.heartbeat_in() <= 0


def finished(*, complete: bool = True, stuck: int = 0, walk: bool = False) -> Round:
    """A touch, made at 5 s of Redis's clock, is resolved."""
    return Round(b"mark", 5_000, complete, Purpose(walk=walk), stuck=stuck)


@pytest.mark.parametrize(("stuck", "pause"), [(0, LIMITS.retry), (1, LIMITS.stuck_retry)])
def test_what_a_touch_could_not_resolve_is_not_touched_again_in_a_spin(stuck: int, pause: float) -> None:
    made, clock = schedule(lowest_ms=4_000)
    assert made.overdue()

    made.finished(finished(stuck=stuck))

    assert made.due_in() == pytest.approx(pause)
    assert not made.overdue()
    clock.now += pause + 1e-6
    assert made.overdue()


def test_what_is_left_of_more_than_one_touch_may_see_is_touched_at_once() -> None:
    made, _ = schedule(lowest_ms=4_000)
    made.finished(finished(complete=False))
    assert made.overdue()


def test_entries_that_are_stuck_are_passed_over_until_all_that_is_due_was_seen() -> None:
    made, _ = schedule(lowest_ms=4_000)
    for stuck, complete, skip in [(3, False, 3), (2, False, 5), (1, True, 0)]:
        made.finished(finished(stuck=stuck, complete=complete))
        assert made.skip == skip


def test_a_part_of_a_walk_holds_nothing_back() -> None:
    made, _ = schedule(lowest_ms=4_000)
    made.finished(finished(walk=True, stuck=3))
    assert made.overdue()
    assert made.skip == 0
