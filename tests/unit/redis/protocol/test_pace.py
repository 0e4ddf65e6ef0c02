"""How fast a scan goes: at once while a gap is open; else in small parts, with rests while Redis is busy."""

import math

import pytest

from bridge.limits import EpochLimits
from bridge.redis.protocol.findings import Findings
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.pace import Pace
from tests.support.hand_clock import HandClock

LIMITS = EpochLimits(slow_touch=0.001, scan_rest=0.1)
QUICK, SLOW = 0.0005, 0.012


def scanning(*, gap_open: bool) -> tuple[Pace, HandClock]:
    clock, findings = HandClock(), Findings()
    findings.begin(b"*")
    pace = Pace(clock, LIMITS, Gap("test", 1, 1 if gap_open else 0), findings)
    pace.touched(QUICK)
    return pace, clock


def test_while_a_gap_is_open_large_parts_follow_each_other_however_busy_redis_is() -> None:
    pace, _ = scanning(gap_open=True)
    pace.touched(SLOW)
    pace.scanned()
    assert (pace.keys(), pace.due_in(), pace.rest) == (LIMITS.found_keys, 0.0, 0.0)


def test_else_parts_are_small_and_rest_for_as_long_as_a_touch_took_longer_than_usual() -> None:
    pace, clock = scanning(gap_open=False)
    pace.scanned()
    assert (pace.keys(), pace.due_in()) == (LIMITS.part_keys, 0.0)

    pace.touched(SLOW)
    pace.scanned()
    assert pace.keys() == 0
    assert pace.due_in() == pytest.approx(SLOW - LIMITS.slow_touch, rel=0.1)
    clock.now += SLOW
    assert (pace.keys(), pace.due_in()) == (LIMITS.part_keys, 0.0)

    pace.touched(QUICK)
    pace.scanned()
    assert pace.keys() == LIMITS.part_keys


def test_a_rest_has_an_end_however_slow_redis_is_and_what_is_slow_for_good_becomes_usual() -> None:
    pace, _ = scanning(gap_open=False)
    pace.touched(5.0)
    assert pace.rest == LIMITS.scan_rest
    for _ in range(1_000):
        pace.touched(SLOW)
    assert pace.rest == 0.0


def test_where_nothing_is_scanned_nothing_is_due() -> None:
    pace = Pace(HandClock(), LIMITS, Gap("test", 1, 0), Findings())
    assert (pace.keys(), pace.due_in()) == (0, math.inf)
