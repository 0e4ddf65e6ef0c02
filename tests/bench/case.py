"""What a case of the benchmark is. Read this first.

A *case* is one question. It is answered by *variants*, which the runner measures in turn (A B C, A B C, …), so that
whatever else the machine does strikes all of them alike. Each measurement gives *figures* by name; the case judges
their medians: a *verdict* is one of them, or a ratio of two, beside its bar.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tests.bench.chart import Chart

Figures = dict[str, float]
"""Name → value. The name ends with the unit: `rate_per_s`, `bridge_cpu_us`."""
Medians = Mapping[str, Figures]
"""Variant → the median of each of its figures."""
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

    @property
    def reached(self) -> bool:
        """Whether the bar is reached; also true where there is none."""
        return not (
            (self.at_least is not None and self.value < self.at_least)
            or (self.at_most is not None and self.value > self.at_most)
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
