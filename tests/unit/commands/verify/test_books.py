"""The plan and the books of `expiry-bridge verify`: whose verdict it is, must itself be right."""

import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from bridge.cloudevents import Encoder
from bridge.commands.readers.arrivals import Arrival, read_event
from bridge.commands.readers.jetstream import covering
from bridge.commands.verify.books import Books, Falsehood, Lag, Moment
from bridge.commands.verify.plan import Plan
from bridge.commands.verify.report import Report
from bridge.expiration import Expiration, GapRecord, Identity, Via

IDENTITY = Identity("/redis", 0)
NOW_MS = 1_795_346_562_000
LATER = Moment(NOW_MS + 60_000, 1)


def plan(keys: int, *, fields: bool = False, **changed: int) -> Plan:
    planned = {"keys": keys, "rate": 200, "ttl_min_ms": 1000, "ttl_max_ms": 5000, "patience_ms": 0, **changed}
    return Plan(fields=fields, **planned)


def books(keys: int) -> Books:
    """All of whose keys are set, to expire now."""
    made = Books(plan(keys), IDENTITY)
    for number in range(made.plan.total):
        made.plant(number, NOW_MS)
    return made


def arrival(made: Books, number: int, stored_ms: float | None = NOW_MS + 3) -> Arrival:
    key = made.plan.key(number)
    return Arrival(IDENTITY.of_deadline(key, NOW_MS), key, NOW_MS, NOW_MS + 2, Via.NOTIFICATION, stored_ms)


def expiring(made: Books) -> list[int]:
    return [number for number in range(made.plan.total) if not made.plan.is_control(number)]


# The plan.


@pytest.mark.parametrize("keys", [1, 2, 3, 7, 99, 100, 1000, 12_345])
def test_a_few_keys_are_controls_of_both_kinds_spread_evenly_and_never_the_last(keys: int) -> None:
    made = plan(keys)
    controls = [number for number in range(made.total) if made.is_control(number)]
    assert len(controls) == made.controls == min(max(keys // 50, 2), 100, keys)
    assert controls[-1] < made.total - 1
    kinds = [made.is_deleted(number) for number in controls]
    assert abs(kinds.count(True) - kinds.count(False)) <= 1
    assert max(later - sooner for sooner, later in zip(controls, [*controls[1:], made.total], strict=True)) <= (
        made.total // made.controls + 1
    )


def test_lifetimes_fill_the_span_and_the_last_key_lives_longest() -> None:
    made = plan(1000)
    lifetimes = sorted(map(made.ttl_ms, range(made.total)))
    assert 1000 <= lifetimes[0] < lifetimes[-1] == made.ttl_ms(made.total - 1) == 5000
    assert max(later - sooner for sooner, later in pairwise(lifetimes)) < 20


def test_a_key_has_one_number_and_no_other_text_has_any() -> None:
    made = plan(100)
    assert [made.number(made.key(number)) for number in range(made.total)] == list(range(made.total))
    prefix = made.prefix.encode()
    for stranger in (b"", b"102", b"00", b"-1", b"1 ", b"\xb2", b"9" * 5000):
        assert made.number(prefix + stranger) is None
    assert made.number(replace(made).key(1)) is None
    assert made.number(b"1") is None


# The books.


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    made = books(200)
    for late_ms, number in enumerate(expiring(made), start=1):
        made.arrived(arrival(made, number, NOW_MS + late_ms), LATER)
    assert made.lag() == Lag(100, 198, 200)
    assert made.ok
    assert list(made.left())[:1] == [made.plan.key(0)]  # the controls


def test_where_the_broker_keeps_no_time_that_of_reading_counts() -> None:
    made = books(2)
    for number in expiring(made):
        made.arrived(arrival(made, number, None), Moment(NOW_MS + 7, 1))
    assert made.lag() == Lag(7, 7, 7)
    assert made.read_clocks == {"redis": 2}


@pytest.mark.parametrize(("stored_ms", "skew_ms"), [(+90, 79), (-40, -40), (+11, 0), (0, 0)])
def test_a_clock_of_the_broker_that_is_wrong_is_noticed(stored_ms: int, skew_ms: int) -> None:
    made = books(1)
    made.arrived(arrival(made, 1, NOW_MS + stored_ms), Moment(NOW_MS + 10, 1))
    assert made.skew_ms == skew_ms
    shown = [note for note in Report(made, "", interrupted=False, left=0)._notes() if "clock is at least" in note]
    assert len(shown) == (skew_ms != 0)


def test_a_message_is_early_only_if_redis_s_clock_cannot_have_come_so_far() -> None:
    made = books(1)
    made.arrived(arrival(made, 1), Moment(NOW_MS - 3, 2))
    assert (made.falsehoods, made.delivered) == ({Falsehood.EARLY: 1}, 0)
    made.arrived(arrival(made, 1), Moment(NOW_MS - 3, 3))
    assert (made.falsehoods, made.delivered) == ({Falsehood.EARLY: 1}, 1)


def test_a_message_that_says_itself_that_it_is_early_is_false_whenever_it_is_read() -> None:
    made = books(1)
    made.arrived(replace(arrival(made, 1), observed_ms=NOW_MS - 1), LATER)
    assert (made.falsehoods, made.delivered) == ({Falsehood.EARLY: 1}, 0)


def test_a_control_that_was_taken_back_too_late_may_be_announced_or_not() -> None:
    made = books(100)
    for number in (0, 51):
        made.withdraw(number, in_time=False)
        made.arrived(arrival(made, number), LATER)
    assert (made.false, made.ambiguous, made.controls, made.delivered) == (0, 0, 0, 0)


def test_a_control_that_is_announced_before_its_fate_is_known_is_void() -> None:
    made = books(100)
    made.arrived(arrival(made, 0), LATER)
    made.withdraw(0, in_time=True)
    assert (made.false, made.controls) == (0, 0)


def test_a_million_keys_take_some_20_megabytes_and_false_messages_none() -> None:
    made = Books(plan(1_000_000), IDENTITY)
    size = sum(map(sys.getsizeof, (made._states, made._deadlines_ms)))
    assert size < 10 * made.plan.total
    stranger = replace(arrival(made, 1), key=made.plan.prefix.encode() + b"x")
    for _ in range(1000):
        made.arrived(stranger, LATER)
    assert (made.false, len(made.false_keys)) == (1000, 5)


def test_the_keys_that_are_missed_are_named_by_number_and_the_first_few() -> None:
    made = books(100)
    report = Report(made, "here", interrupted=False, left=3)
    assert report.as_json()["missed"] == 100
    assert len(report.as_json()["missed_keys"]) == 5
    notes = "\n".join(report._notes())
    assert "and 95 more" in notes
    assert "Up to 3 keys could not be deleted" in notes


def test_where_all_ids_are_others_the_remedy_is_the_source_and_not_the_bridge() -> None:
    made = books(2)
    assert "is the bridge running" in "\n".join(Report(made, "", interrupted=False, left=0)._notes())
    for number in expiring(made):
        made.arrived(replace(arrival(made, number), id="0" * 32), LATER)
    notes = "\n".join(Report(made, "", interrupted=False, left=0)._notes())
    assert "is BRIDGE_SOURCE the bridge's own" in notes
    assert "is the bridge running" not in notes


@pytest.mark.parametrize(("fields", "patterns"), [(True, "BRIDGE_FIELDS"), (False, "BRIDGE_KEYS")])
def test_where_all_are_missed_the_remedy_names_the_patterns_that_count(*, fields: bool, patterns: str) -> None:
    made = books(2)
    made.plan = replace(made.plan, fields=fields)
    notes = "\n".join(Report(made, "", interrupted=False, left=0)._notes())
    assert f"these settings, {patterns} and" in notes


# What a message says.


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.parametrize("key", [b"share:1", b"\xff\x00", b""])
def test_what_the_bridge_encodes_is_read_back(mode: str, key: bytes) -> None:
    event = Expiration(IDENTITY.of_deadline(key, NOW_MS), key, NOW_MS, NOW_MS + 2, Via.SWEEP)
    message = Encoder("/redis", 0, "binary" if mode == "binary" else "structured").encode(event)
    assert read_event(message.body, message.attributes, 5.0) == Arrival(
        event.id, key, NOW_MS, NOW_MS + 2, Via.SWEEP, 5.0
    )


def test_what_announces_no_expiration_is_nothing() -> None:
    gap = Encoder("/redis", 0, "structured").encode(GapRecord("1" * 32, "n", 1, 2, "c", None, 0, 0)).body
    for body in (gap, b"", b"\xff", b"[]", b"1", b"{}", b'{"specversion":"1.0","type":"redis.key.expired"}'):
        assert read_event(body, {}, None) is None


def test_the_subjects_of_keys_are_covered_by_one() -> None:
    assert covering("a.b.1", "a.b.2") == "a.b.*"
    assert covering("a.x-1.z", "a.x-2.z") == "a.*.z"
    assert covering("a", "a") == "a"
