"""The audit's arithmetic: a number is right, or there is none."""

from collections.abc import Sequence

import pytest

from bridge.limits import EpochLimits
from bridge.redis.protocol.audit import Audit, Reading, Trust, missed

LIMITS = EpochLimits()
COUNTERS: Sequence[bytes | int] = (b"run", b"0", b"100", b"5000", b"7", 10)


def reading(expired: int, heard: int, *, life: str = "run/0", commands: int = 5000, connections: int = 7) -> Reading:
    return Reading(life, (expired, commands, connections), heard)


def test_canaries_that_expired_are_left_out_but_not_those_that_were_void() -> None:
    assert Reading.of(COUNTERS, heard=4, void=0) == reading(90, 4)
    assert Reading.of(COUNTERS, heard=4, void=2) == reading(92, 4)


@pytest.mark.parametrize(
    "counters", [(), (b"",), COUNTERS[:-1], (b"run", b"0", b"", b"5000", b"7", 10), (b"run", b"0", b"x", b"1", b"1", 0)]
)
def test_a_server_that_does_not_tell_all_gives_no_reading(counters: Sequence[bytes | int]) -> None:
    assert Reading.of(counters, heard=4, void=0) is None


def test_a_reading_survives_being_stored() -> None:
    assert Reading.parse(str(reading(90, 4))) == reading(90, 4)


@pytest.mark.parametrize("text", ["", "run/0", "run/0 ", "run/0 1 x", "\ufffd"])
def test_what_somebody_else_stored_is_no_reading(text: str) -> None:
    assert Reading.parse(text) is None


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (reading(100, 50), reading(100, 50), 0),
        (reading(100, 50), reading(130, 70), 10),
        (reading(100, 50), reading(130, 80), 0),
        (reading(100, 50), reading(130, 81), None),  # heard more than there was
        (reading(100, 50), reading(99, 50), None),  # reset
        (reading(100, 50), reading(200, 50, commands=4999), None),
        (reading(100, 50), reading(200, 50, connections=6), None),
        (reading(100, 50), reading(200, 50, life="other/0"), None),  # restarted
        (reading(100, 50), reading(200, 50, life="run/3"), None),  # loaded its data
        (None, reading(100, 50), None),
        (reading(100, 50), None, None),
        (reading(100, 50), Reading("run/0", (200,), 50), None),  # of another version
    ],
)
def test_a_count_is_right_or_there_is_none(before: Reading | None, after: Reading | None, count: int | None) -> None:
    assert missed(before, after) == count


def test_an_epoch_is_told_of_what_it_misses_and_the_gap_of_all_since_the_stored_reading() -> None:
    audit = Audit(reading(100, 50), LIMITS)
    assert audit.read(reading(107, 50)) == 0  # before the epoch
    assert audit.in_gap() == 7
    audit.closed()
    assert audit.read(reading(110, 53)) == 0
    assert audit.read(reading(115, 53)) == 5


def test_what_is_missed_while_the_gap_is_open_belongs_to_it() -> None:
    audit = Audit(reading(100, 50), LIMITS)
    audit.read(reading(100, 50))
    audit.read(reading(103, 50))
    assert audit.in_gap() == 3
    audit.closed()
    assert audit.read(reading(104, 51)) == 0


def test_counters_that_begin_anew_are_followed() -> None:
    audit = Audit(reading(100, 50), LIMITS)
    audit.read(reading(100, 50))
    assert audit.read(reading(0, 50)) == 0
    assert audit.in_gap() is None
    assert audit.read(reading(4, 51)) == 3


def test_a_reading_is_due_at_once_and_then_at_intervals() -> None:
    audit = Audit(None, LIMITS)
    assert audit.due(0.0)
    audit.asked(5.0)
    assert not audit.due(5.0 + LIMITS.audit - 0.1)
    assert audit.due(5.0 + LIMITS.audit)


def test_trust_is_lost_by_short_epochs_in_a_row_and_not_by_long_ones() -> None:
    trust, few = Trust(LIMITS), [1.0] * (LIMITS.audit_most_short - 1)
    for seconds in [*few, LIMITS.audit_short_epoch, *few]:
        assert not trust.doubt(seconds)
    assert trust.doubt(1.0)
    assert trust.lost
