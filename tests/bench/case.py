"""What a case of the benchmark is. Read this first.

A *case* is one question. It is answered by *variants*, which the runner measures in turn (A B C, A B C, …), so that
whatever else the machine does strikes all of them alike. Each measurement gives *figures* by name; the case judges
their medians: a *verdict* is one of them, or a ratio of two, beside its bar.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from tests.bench.chart import Chart

Figures = dict[str, float]
"""Name → value. The name ends with the unit: `rate_per_s`, `bridge_cpu_us`."""
Medians = Mapping[str, Figures]
"""Variant → the median of each of its figures."""
CONTROL_SHARE: Final = 1 / 3
"""Of a bar: where the control takes more than that, the machine is what is measured."""
Variant = Callable[[], Awaitable[Figures]]
"""One measurement."""


@dataclass(frozen=True)
class Verdict:
    """One figure, as it is judged."""

    what: str
    value: float
    unit: str = "×"
    """`×` for a ratio."""
    at_least: float | None = None
    at_most: float | None = None
    """The bar; with neither, the figure only informs."""
    beyond: bool = False
    """Whether the measurement was given up at that value: it is more."""
    control: float | None = None
    """For an absolute bar: what a bare timer and an echo took in the same seconds, in the same unit (`control.py`)."""
    before: float | None = None
    """What an older bridge had in the same run."""
    at_most_of_before: float | None = None
    """A bar for the ratio to that."""

    @property
    def judged(self) -> bool:
        """Whether the machine was quiet enough for the bar to mean anything."""
        return self.control is None or self.at_most is None or self.control <= self.at_most * CONTROL_SHARE

    @property
    def ratio(self) -> float | None:
        """To what it was before; None if that was not measured."""
        return self.value / self.before if self.before else None

    @property
    def reached(self) -> bool:
        """Whether all bars are reached that can be judged; also true where there are none."""
        ratio = self.ratio
        return not (
            (self.at_least is not None and self.value < self.at_least)
            or (self.at_most is not None and self.judged and self.value > self.at_most)
            or (self.at_most_of_before is not None and ratio is not None and ratio > self.at_most_of_before)
        )


class Case(Protocol):
    """One question."""

    name: str
    """On the command line."""
    title: str
    question: str
    """In one sentence, what is measured, and how."""
    runs: int
    """How many times each variant is measured."""
    seconds: float
    """How long that may take: where it would take longer, there are fewer turns, though one at least."""

    def opened(self, scale: float) -> AbstractAsyncContextManager[Mapping[str, Variant]]:
        """The variants, in the order in which they take turns, with what they share. `scale` multiplies all sizes."""

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """What the medians say."""

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """How they are shown."""


@runtime_checkable
class Tabled(Protocol):
    """A case whose variants are best shown beside each other, in a table of its own."""

    def table(self, medians: Medians) -> Sequence[Sequence[str]]:
        """Rows of cells; the first row is the head."""
