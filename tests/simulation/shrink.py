"""Make a failing run smaller: whatever can be left out, so that the same promise is still broken, is left out.

First what concerns all of it (bridges, disorder, delays, habits), then halves, quarters, … of the strikes, then time.
A run without one strike has all others at the same moments, with the same choices; what comes of them may differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.simulation.broker import Faults
from tests.simulation.plan import Plan
from tests.simulation.world import Outcome, run

MOST_RUNS = 150


class Shrinker:
    """Of one failing run."""

    def __init__(self, outcome: Outcome, tell: Callable[[str], object]) -> None:
        self.smallest = outcome
        self.runs = 0
        self._sentence = next(iter(outcome.violations))
        self._tell = tell

    def shrink(self) -> Outcome:
        """The smallest run that was found."""
        progress = True
        while progress and self.runs < MOST_RUNS:
            progress = any([self._simplify(), self._drop_strikes(), self._shorten()])
        return self.smallest

    def _fails(self, plan: Plan) -> bool:
        """Whether it breaks the same promise; then it is the smallest one now."""
        self.runs += 1
        outcome = run(plan)
        if self._sentence not in outcome.violations:
            return False
        self.smallest = outcome
        self._tell(f"{self.runs}: {len(outcome.struck)} strikes, {outcome.steps} steps, {plan.seconds:.1f} s")
        return True

    def _simplify(self) -> bool:
        simpler = False
        for simplify in _SIMPLER:
            plan = simplify(self.smallest.plan)
            if plan != self.smallest.plan and self.runs < MOST_RUNS and self._fails(plan):
                simpler = True
        return simpler

    def _drop_strikes(self) -> bool:
        before = len(self.smallest.struck)
        size = before
        while size and self.runs < MOST_RUNS:
            place = 0
            while place < len(self.smallest.struck) and self.runs < MOST_RUNS:
                dropped = self.smallest.struck[place : place + size]
                plan = self.smallest.plan
                if not self._fails(replace(plan, without=plan.without | set(dropped))):
                    place += size
            size //= 2
        return len(self.smallest.struck) < before

    def _shorten(self) -> bool:
        shorter = False
        for factor in (0.5, 0.7, 0.9):
            while self.runs < MOST_RUNS and self._fails(
                replace(self.smallest.plan, seconds=self.smallest.plan.seconds * factor)
            ):
                shorter = True
        return shorter


_SIMPLER: Sequence[Callable[[Plan], Plan]] = (
    lambda plan: replace(plan, bridges=1),
    lambda plan: replace(plan, bridges=min(plan.bridges, 2)),
    lambda plan: replace(plan, disorder=0.0),
    lambda plan: replace(plan, settings={}),
    lambda plan: replace(plan, batch=Plan.batch, backlog=Plan.backlog),
    lambda plan: replace(plan, publishing=Faults()),
    lambda plan: replace(plan, broker="jetstream"),
    lambda plan: replace(plan, kind="redis"),
    lambda plan: replace(plan, network=replace(plan.network, slow=0.0, chop=0.0)),
    lambda plan: replace(plan, network=replace(plan.network, behind=0.0)),
    lambda plan: replace(plan, habits=replace(plan.habits, crowd=0.0)),
    lambda plan: replace(plan, habits=replace(plan.habits, provoked=0.0, once=0.0)),
    lambda plan: replace(plan, habits=replace(plan.habits, keys=1)),
    lambda plan: replace(plan, habits=replace(plan.habits, pause=2 * plan.habits.pause)),
)
"""Each leaves one thing out."""
