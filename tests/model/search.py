"""Search of a model: every state within its bounds, breadth first, so that a counterexample is among the shortest."""

import random
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Successor(NamedTuple, Generic[S]):
    """A step, and what it leads to: a state, or a violation."""

    label: str
    mandatory: bool
    """Whether it happens at last if nothing else does."""
    state: S | None
    violation: str | None


class Model(Protocol[S]):
    """What can be searched."""

    def start(self) -> S:
        """The first state."""
        ...

    def successors(self, state: S) -> Iterator[Successor[S]]:
        """Every step that can be taken in `state`."""
        ...

    def final(self, state: S) -> str | None:
        """What is wrong with a state in which no step is mandatory."""
        ...


@dataclass(frozen=True)
class Found:
    """What a search found."""

    violation: str | None
    trace: tuple[str, ...]
    states: int
    depth: int
    complete: bool
    """Whether every state within the bounds was seen."""
    seconds: float


def search(model: Model[S], *, seconds: float = 3600, states: int = 50_000_000) -> Found:
    """Look at every state until a violation is found, or a limit is reached. States are remembered by their hashes."""
    began = time.monotonic()
    first = model.start()
    came_from: dict[int, tuple[int, str] | None] = {hash(first): None}
    level, depth = [(hash(first), first)], 0

    def found(violation: str | None, trace: tuple[str, ...] = (), *, complete: bool = False) -> Found:
        return Found(violation, trace, len(came_from), depth, complete, time.monotonic() - began)

    while level:
        following: list[tuple[int, S]] = []
        for known, state in level:
            finished = True
            for label, mandatory, reached, violation in model.successors(state):
                finished = finished and not mandatory
                if reached is None:
                    return found(violation, (*_trace(came_from, known), label))
                if (new := hash(reached)) not in came_from:
                    came_from[new] = (known, label)
                    following.append((new, reached))
            if finished and (violation := model.final(state)) is not None:
                return found(violation, _trace(came_from, known))
        level, depth = following, depth + 1
        if time.monotonic() - began > seconds or len(came_from) > states:
            return found(None)
    return found(None, complete=True)


def _trace(came_from: dict[int, tuple[int, str] | None], known: int) -> tuple[str, ...]:
    labels: list[str] = []
    while (step := came_from[known]) is not None:
        known, label = step
        labels.append(label)
    return tuple(reversed(labels))


def walk(model: Model[S], seed: int, *, walks: int, stop: float = 0.3, optional: float = 0.45) -> Found:
    """Random walks, for bounds that are too wide for a search: `states` is the number of steps."""
    dice = random.Random(seed)
    began, steps, depth = time.monotonic(), 0, 0
    for _ in range(walks):
        state, trace = model.start(), list[str]()
        while True:
            successors = list(model.successors(state))
            must = [one for one in successors if one.mandatory]
            may = [one for one in successors if not one.mandatory]
            wrong = next((one for one in successors if one.violation is not None), None)
            violation = wrong.violation if wrong is not None else None if must else model.final(state)
            if violation is not None:
                label = () if wrong is None else (wrong.label,)
                return Found(
                    violation, (*trace, *label), steps, depth, complete=False, seconds=time.monotonic() - began
                )
            if not must and (not may or dice.random() < stop):
                break
            taken = dice.choice(may if may and (not must or dice.random() < optional) else must)
            if taken.state is None:
                break
            state = taken.state
            trace.append(taken.label)
            steps += 1
            depth = max(depth, len(trace))
    return Found(None, (), steps, depth, complete=False, seconds=time.monotonic() - began)
