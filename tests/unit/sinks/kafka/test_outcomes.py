"""What the Kafka sink learns from the end of a session."""

import pytest

from bridge.contracts import Message
from bridge.sinks.kafka import outcomes
from bridge.sinks.kafka.outcomes import FEWEST_BYTES, Outcomes

MOST_BYTES = 256 * 1024


def batch(*ids: str) -> list[Message]:
    return [Message(id_, id_.encode(), b"{}", "application/json") for id_ in ids]


def test_what_is_rejected_is_not_sent_again() -> None:
    known, messages = Outcomes(MOST_BYTES), batch("a", "b", "c")
    known.reject(messages[1], "too large")
    assert known.still_open(messages) == ([0, 2], {1: "too large"})


def test_of_a_batch_that_has_ended_nothing_is_remembered() -> None:
    known, messages = Outcomes(MOST_BYTES), batch("a", "b")
    known.reject(messages[0], "too large")
    known.forget(messages)
    assert list(known.still_open(messages)[0]) == [0, 1]


def test_the_memory_is_bounded_and_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_REMEMBERED", 3)
    known, messages = Outcomes(MOST_BYTES), batch("a", "b", "c", "d", "e")
    for message in messages:
        known.reject(message, "too large")
    assert list(known.still_open(messages)[0]) == [0, 1]


def test_a_batch_that_was_too_large_makes_for_smaller_ones_but_not_for_ever() -> None:
    known = Outcomes(MOST_BYTES)
    known.shrink(10 * MOST_BYTES)
    assert known.records_bytes == MOST_BYTES // 2
    known.shrink(5000)
    assert known.records_bytes == 2500
    known.shrink(100)
    assert known.records_bytes == FEWEST_BYTES
