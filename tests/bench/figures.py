"""Statistics of measurements."""

import statistics
from collections.abc import Sequence

from tests.bench.case import Figures


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of them do not exceed."""
    return sorted(values)[min(round(len(values) * percent / 100), len(values) - 1)]


def median(found: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return {name: statistics.median(figures[name] for figures in found) for name in found[0]}
