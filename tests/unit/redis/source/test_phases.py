"""The phases of a source: which follow which, and that the diagram shows the same."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

import bridge
from bridge.redis.source.phases import TRANSITIONS, Phase, Phases


def after(*phases: Phase) -> Phases:
    """A source that has gone through these."""
    made = Phases()
    for phase in phases:
        made.enter(phase)
    return made


def test_a_source_goes_from_locating_to_watching_and_begins_again_when_that_has_ended() -> None:
    way = [Phase.LOCATING, Phase.STANDING_BY, Phase.TAKING_OVER, Phase.RECONCILING, Phase.WATCHING, Phase.ENDED]
    made = Phases()
    for phase in [*way, *way, Phase.STOPPED]:
        made.enter(phase)
    assert made.now is Phase.STOPPED


def test_what_does_not_follow_is_an_error() -> None:
    for phase in Phase:
        legal = TRANSITIONS[phase] | {phase}
        for following in set(Phase) - legal:
            made = Phases()
            made.now = phase
            with pytest.raises(RuntimeError, match=f"cannot be {following.value} after {phase.value}"):
                made.enter(following)


def test_every_phase_can_be_reached_and_left_but_the_last() -> None:
    reached = set().union(*TRANSITIONS.values())
    assert reached == set(Phase)
    assert [phase for phase in Phase if not TRANSITIONS[phase]] == [Phase.STOPPED]


def test_an_epoch_is_under_way_while_reconciling_and_watching() -> None:
    way = [Phase.TAKING_OVER, Phase.RECONCILING, Phase.WATCHING, Phase.ENDED]
    assert [after(*way[: number + 1]).in_epoch for number in range(len(way))] == [False, True, True, False]


def test_redis_has_served_a_source_that_stood_by_or_closed_a_gap() -> None:
    assert not after(Phase.TAKING_OVER, Phase.RECONCILING, Phase.ENDED).served
    assert after(Phase.STANDING_BY, Phase.ENDED).served
    watched = after(Phase.TAKING_OVER, Phase.RECONCILING, Phase.WATCHING, Phase.ENDED)
    assert watched.served
    assert watched.has_watched
    assert not after(Phase.STANDING_BY).has_watched


def test_the_diagram_of_the_architecture_shows_the_same_transitions() -> None:
    page = (Path(bridge.__file__).parent / "ARCHITECTURE.md").read_text("utf-8")
    (diagram,) = re.findall(r"```mermaid\nstateDiagram-v2\n    \[\*\] --> locating\n(.*?)```", page, re.DOTALL)
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", diagram, re.MULTILINE))
    name = {phase: phase.value.replace(" ", "_") for phase in Phase}
    assert drawn == {(name[phase], name[after_]) for phase, all_ in TRANSITIONS.items() for after_ in all_}
    assert all(
        f"    {one} --> {other}" in diagram for one, other in pairwise(["locating", "taking_over", "reconciling"])
    )
