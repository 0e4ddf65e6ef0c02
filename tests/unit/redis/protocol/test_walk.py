"""The walk of the ledger: once in a gap, in turns with what is due, and again when slots have gone."""

import pytest

from bridge.redis.protocol.walk import START, Walk


def turns(walk: Walk, count: int, *, overdue: bool = False, full: bool = False) -> list[bool]:
    """Which of the next touches walk."""
    return [walk.take_turn(overdue=overdue, full=full) for _ in range(count)]


def where(walk: Walk) -> bytes | None:
    """Where it goes on."""
    return walk.cursor


def test_it_goes_part_by_part_until_redis_says_that_it_is_through() -> None:
    walk = Walk()
    assert where(walk) == START
    walk.walked(b"17")
    assert where(walk) == b"17"
    walk.walked(START)
    assert where(walk) is None
    assert turns(walk, 2) == [False, False]


def test_it_takes_turns_with_what_is_overdue_and_else_takes_all() -> None:
    walk = Walk()
    assert turns(walk, 3) == [True, True, True]
    assert turns(walk, 4, overdue=True) == [False, True, False, True]


def test_while_the_outbox_is_full_nothing_is_walked_and_the_walk_is_next_then() -> None:
    walk = Walk()
    assert turns(walk, 2, full=True) == [False, False]
    assert turns(walk, 2, overdue=True) == [True, False]


def test_an_epoch_without_a_gap_begins_without_a_walk() -> None:
    walk = Walk(needed=False)
    assert where(walk) is None
    walk.repeat()
    assert where(walk) == START


@pytest.mark.parametrize("gap_first", [True, False])
def test_another_one_begins_when_the_gap_is_closed_and_the_one_under_way_is_done(*, gap_first: bool) -> None:
    walk = Walk()
    walk.walked(b"17")
    walk.repeat()
    assert where(walk) == b"17"
    if gap_first:
        walk.gap_closed()
        assert where(walk) == b"17"
        walk.walked(START)
    else:
        walk.walked(START)
        assert where(walk) is None
        walk.gap_closed()
    assert where(walk) == START
    walk.walked(START)
    assert where(walk) is None
