"""The book of the chaos tests, and its judge: what is promised is asked for; only what is not promised is let go."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.book import MISSING, PERSISTENT, Book
from tests.chaos.ground import Ground, Upheaval
from tests.chaos.judgement import judge
from tests.support.contract import id_of_deadline
from tests.support.deployments.stored import StoredExpiration

KEY = "share:1"
SEEN = "1000"
"""The score of a deadline of 1000, in the ledger."""


def said(
    deadline_ms: int | None = 1_000,
    *,
    observed_ms: int = 1_010,
    via: str = "notification",
    key: str = KEY,
    stored_ms: float = 0.0,
) -> StoredExpiration:
    """What a bridge announced."""
    id_ = f"of {observed_ms}" if deadline_ms is None else id_of_deadline(key.encode(), deadline_ms)
    return StoredExpiration(id_, key, deadline_ms, observed_ms, via, "expired.0.share", stored_ms)


def gap(opened_ms: int = 900, closed_ms: int = 1_500, missed: int | None = 0, ambiguous: int = 0) -> dict[str, Any]:
    """A gap record, by default around the deadline."""
    return {"opened_ms": opened_ms, "closed_ms": closed_ms, "missed": missed, "recovered": 0, "ambiguous": ambiguous}


def life(
    *, recorded: bool = True, found_gone_ms: int | None = 1_300, ended_ms: int | None = None, back: bool = False
) -> Book:
    """One life, with a deadline of 1000: it expires, and perhaps is back when that is found; or it is ended before."""
    book = Book()
    book.saw(KEY, 100, MISSING, "", 1_000)
    book.saw(KEY, 200, 1_000, SEEN if recorded else "", 1_000)
    if ended_ms is not None:
        book.saw(KEY, ended_ms, 1_000, "", MISSING)
    elif found_gone_ms is not None:
        book.saw(KEY, found_gone_ms, MISSING, "", PERSISTENT if back else MISSING)
    return book


def found(
    book: Book,
    stored: Sequence[StoredExpiration],
    *gaps: dict[str, Any],
    may_copy: bool = False,
    ground: Ground | None = None,
) -> list[str]:
    """The first lines of the violations."""
    verdict = judge(book, stored, gaps, may_copy=may_copy, ground=ground)
    return [violation.splitlines()[0] for violation in verdict.violations]


def test_an_expiration_that_is_announced_is_well() -> None:
    assert found(life(), [said()]) == []


@pytest.mark.parametrize("gaps", [[], [gap(missed=None, ambiguous=9)]])
def test_one_that_was_recorded_and_is_left_alone_has_to_be_announced_whatever_happens(
    gaps: list[dict[str, Any]],
) -> None:
    assert found(life(), [], *gaps) == ["lost, though it was recorded"]
    assert found(life(), [said(None)], *gaps)[0] == "announced, and did not expire"


def test_one_that_was_recorded_and_is_back_within_a_gap_may_be_lost_if_that_is_counted() -> None:
    assert found(life(back=True), []) == ["lost, though it was recorded"]
    assert found(life(back=True), [], gap(missed=1, ambiguous=1)) == []
    assert found(life(back=True), [], gap(missed=1)) == ["1 recorded ones lost, but only 0 ambiguous"]
    assert found(life(back=True), [], gap(missed=None)) == ["1 recorded ones lost, but only 0 ambiguous"]
    assert found(life(back=True), [], gap(2_000, 3_000, missed=1, ambiguous=1)) == ["lost, though it was recorded"]


def test_one_that_was_not_recorded_may_be_lost_in_a_gap_if_that_is_counted() -> None:
    book = life(recorded=False)
    assert found(book, []) == ["lost outside of all gaps"]
    assert found(book, [], gap(2_000, 3_000, missed=1)) == ["lost outside of all gaps"]
    assert found(book, [], gap(missed=1)) == []
    assert found(book, [], gap(missed=None)) == []
    assert found(book, [], gap()) == ["1 lost and 0 swept, but only 0 missed"]


def test_what_a_sweep_found_was_missed_too() -> None:
    book = life(recorded=False)
    book.saw("share:2", 100, MISSING, "", 1_100)
    book.saw("share:2", 1_300, MISSING, "1100", MISSING)
    swept = said(1_100, via="sweep", key="share:2", observed_ms=1_200)
    assert found(book, [swept], gap(missed=1)) == ["1 lost and 1 swept, but only 1 missed"]
    assert found(book, [swept], gap(missed=2)) == []


def test_gaps_are_counted_together_only_if_a_loss_may_be_in_either() -> None:
    book = life(recorded=False, found_gone_ms=1_300)
    assert found(book, [], gap(900, 1_100), gap(1_100, 1_400, missed=1)) == []
    assert found(book, [], gap(900, 1_400), gap(2_000, 3_000, missed=1)) == ["1 lost and 0 swept, but only 0 missed"]


def test_one_that_was_not_recorded_may_be_announced_without_its_deadline_and_not_before_it() -> None:
    book = life(recorded=False)
    assert found(book, [said(None)]) == []
    assert found(book, [said(None, observed_ms=900)]) == ["announced, and did not expire", "lost outside of all gaps"]
    assert found(book, [said(None), said(None, observed_ms=1_011)]) == ["announced, and did not expire"]


def test_a_message_that_may_stand_for_either_of_two_joins_their_gaps() -> None:
    book = Book()
    for deadline_ms in (1_000, 2_000):
        book.saw(KEY, deadline_ms - 100, MISSING, "", deadline_ms)
        book.saw(KEY, deadline_ms + 50, MISSING, "", MISSING)
    lost = ["1 lost and 0 swept, but only 0 missed"]
    gaps = gap(900, 1_100), gap(1_900, 2_100, missed=1)
    assert found(book, [said(None, observed_ms=2_010)], *gaps) == []
    assert found(book, [said(None, observed_ms=1_010)], *gaps) == []
    assert found(book, [said(None, observed_ms=1_010)], gaps[0], gap(1_900, 2_100)) == lost
    far = gap(900, 1_100), gap(20_000, 21_000, missed=1)
    assert found(book, [said(None, observed_ms=2_010)], *far) == lost


def test_what_has_to_be_announced_is_given_a_message_before_what_need_not_be() -> None:
    book = Book()
    for deadline_ms in (1_000, 2_000):
        book.saw(KEY, deadline_ms - 100, MISSING, "", deadline_ms)
        book.saw(KEY, deadline_ms + 50, MISSING, "", MISSING)
    assert found(book, [said(None, observed_ms=2_010)], gap(900, 1_100, missed=1)) == []


def test_one_that_the_writer_ended_may_be_announced_only_by_a_sweep_of_the_gap_in_which_that_was() -> None:
    book = life(ended_ms=950)
    swept, false = said(via="sweep"), ["announced, and did not expire"]
    assert found(book, []) == []
    assert found(book, [swept], gap()) == []
    assert found(book, [said()], gap()) == false
    assert found(book, [swept]) == false
    assert found(book, [swept], gap(960, 1_500)) == false
    assert found(book, [swept], gap(900, 990)) == false


def test_one_that_was_overwritten_may_be_announced_if_what_became_of_the_key_is_hidden_by_a_gap() -> None:
    book = life(found_gone_ms=None)
    book.saw(KEY, 500, 1_000, "", PERSISTENT)
    swept = said(via="sweep", observed_ms=1_400)
    assert found(book, [swept], gap()) == ["announced, and did not expire"]
    book.saw(KEY, 950, PERSISTENT, "", MISSING)
    assert found(book, [swept], gap()) == []
    assert found(book, [swept], gap(960, 1_500)) == ["announced, and did not expire"]


def test_a_deadline_of_a_former_life_may_stand_for_one_that_was_not_recorded() -> None:
    book = life(ended_ms=950)
    book.saw(KEY, 960, MISSING, "", 1_100)
    book.saw(KEY, 1_300, MISSING, "", MISSING)
    assert found(book, [said(1_000, observed_ms=1_110)]) == []
    assert found(book, [said(1_000, observed_ms=1_050)]) == [
        "announced, and did not expire",
        "lost outside of all gaps",
    ]


def test_deadlines_and_keys_that_never_were_are_announced_falsely() -> None:
    assert found(life(), [said(), said(999)])[0] == "out of order"
    assert "a deadline that the key never had" in found(life(), [said(), said(1_001)])
    assert found(life(), [said(), said(key="share:2")]) == ["a key that nobody ever set"]


def test_nothing_is_announced_before_its_deadline_is_past() -> None:
    assert found(life(), [said(observed_ms=1_000)]) == ["announced before its deadline was past"]


def test_copies_are_for_kafka_or_for_later_and_never_of_another_occurrence() -> None:
    copy = said(stored_ms=119_999.0)
    assert found(life(), [said(), copy]) == ["stored twice"]
    assert found(life(), [said(), copy], may_copy=True) == []
    assert found(life(), [said(), said(stored_ms=120_000.0)]) == []
    assert found(life(), [said(), said(observed_ms=1_011)], may_copy=True) == ["one id for two occurrences"]
    assert "not the id of this key and deadline" in found(life(), [replace(said(), id="another")])


def test_a_key_that_changes_by_itself_is_a_surprise() -> None:
    for before in (MISSING, PERSISTENT, 1_001):
        book = Book()
        book.saw(KEY, 100, MISSING, "", 1_000)
        book.saw(KEY, 500, before, "", before)
        (surprise,) = book.surprises
        assert f"{KEY} had the deadline {before} at 500" in surprise


def test_nothing_is_asked_of_a_key_of_which_the_writer_does_not_know_what_it_did() -> None:
    book = life(found_gone_ms=None)
    book.unsure(KEY)
    book.saw(KEY, 500, PERSISTENT, "", PERSISTENT)
    assert book.surprises == []
    assert found(book, []) == []
    assert found(book, [said(), said(None, observed_ms=1_011)]) == []
    assert found(book, [said(None, observed_ms=ms) for ms in (1_011, 1_012, 1_013)]) == ["announced too often"]


def test_nothing_is_asked_of_a_key_that_was_given_the_same_deadline_again() -> None:
    book = life(ended_ms=500)
    book.saw(KEY, 600, MISSING, SEEN, 1_000)
    assert book.unrecorded() == []
    book.saw(KEY, 1_300, MISSING, SEEN, MISSING)
    assert found(book, [said(None)]) == []
    assert found(book, []) == []


def test_the_ledger_is_asked_only_about_lives_that_go_on_and_were_not_seen_in_it() -> None:
    book = Book()
    book.saw(KEY, 100, MISSING, "", 1_000)
    (only,) = book.unrecorded()
    only.recorded = True
    assert book.unrecorded() == []
    book.saw(KEY, 500, 1_000, "", 2_000)
    assert [life_.deadline_ms for life_ in book.unrecorded()] == [2_000]
    book.saw(KEY, 600, 2_000, "", MISSING)
    assert book.unrecorded() == []


# Several places.


def node_of(gap: Mapping[str, Any]) -> list[str]:
    """Where a gap was."""
    return [str(gap.get("node"))]


@pytest.mark.parametrize(
    ("place", "said"), [("a", []), ("b", ["lost outside of all gaps"]), (None, [])], ids=["there", "elsewhere", "moved"]
)
def test_only_the_gaps_of_its_place_explain_a_loss_or_all_gaps_where_it_was_in_several(
    place: str | None, said: list[str]
) -> None:
    gaps = [gap(missed=1) | {"node": "a"}, gap(900, 950) | {"node": "b"}]
    assert found(life(recorded=False), [], *gaps, ground=Ground(lambda _: place, node_of)) == said


def test_gaps_of_several_places_may_overlap() -> None:
    long, short = gap(0, 5_000, missed=1), gap(100, 200)
    assert found(life(recorded=False), [], short, long) == []
    assert found(life(recorded=False), [], short, gap(0, 990, missed=1)) == ["lost outside of all gaps"]


def test_what_was_carried_to_another_node_may_expire_somewhat_later_and_counts_as_not_recorded() -> None:
    carried = Ground(lambda _: None)
    late = said(1_003, observed_ms=1_010)
    assert found(life(), [late], ground=carried) == []
    assert found(life(), [late])[0] == "a deadline that the key never had"
    assert found(life(), [said(2_001, observed_ms=2_010)], ground=carried)[0] == "a deadline that the key never had"
    assert found(life(), [said(None)], ground=carried) == []
    assert found(life(), [said(), said(1_003, observed_ms=1_011)], ground=carried) == ["announced, and did not expire"]
    assert found(life(), [], ground=carried) == ["lost outside of all gaps"]
    assert found(life(), [], gap(), ground=carried) == []
    assert "out of order" not in found(life(), [said(), said(900)], ground=carried)


def test_the_deadline_that_a_carried_key_has_later_is_no_surprise() -> None:
    for later, surprises in [(1_003, 0), (2_001, 1), (999, 1)]:
        book = Book(lambda _: True)
        book.saw(KEY, 100, MISSING, "", 1_000)
        book.saw(KEY, 500, later, "", later)
        assert len(book.surprises) == surprises


def test_what_a_ledger_knew_before_it_went_elsewhere_counts_only_when_it_is_seen_again() -> None:
    book = life(found_gone_ms=None)
    with book.unsettled(1_000):
        assert book.unrecorded() == [], "it was over by then"
    with book.unsettled(999):
        (only,) = book.unrecorded()
        book.knows(only, SEEN)
        assert not only.recorded
    book.saw(KEY, 300, 1_000, SEEN, 1_000)
    assert only.recorded


def test_in_an_upheaval_an_expiration_may_be_announced_once_more_and_what_was_changed_on_the_successor() -> None:
    during = Ground(upheavals=[Upheaval(frozenset(), 1_000, 1_100)])
    again = said(None, observed_ms=1_050)
    false = ["announced, and did not expire"]
    assert found(life(), [said(), again], ground=during) == []
    assert found(life(), [said(), again]) == false
    assert found(life(), [said(), said(None, observed_ms=1_101)], ground=during) == false
    assert found(life(ended_ms=950), [said()], ground=during) == []
    late = life(ended_ms=950)
    late.saw(KEY, 960, MISSING, "", 980)
    late.saw(KEY, 990, MISSING, "", MISSING)
    assert found(late, [said(observed_ms=1_005), said(980, observed_ms=1_006)], ground=during) == []
    elsewhere = Ground(lambda _: "a", upheavals=[Upheaval(frozenset("b"), 1_000, 1_100)])
    assert found(life(), [said(), again], ground=elsewhere) == false
