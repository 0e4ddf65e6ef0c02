"""The histogram of the lag: counted for a whole batch at once.

prometheus-client's own takes a microsecond for each observation (a lock each for bucket and sum), which is more than
anything else that is done for one message behind its ack.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Buckets = Sequence[tuple[float, float]]
"""Upper bound in seconds, the last one infinite; how many lags were not above it."""


def quantile(share: float, lags: Buckets) -> float | None:
    """The lag, in seconds, that this share of them does not exceed, as near as the buckets tell; None without any.

    Beyond the last finite bound nothing is known: then it is that bound.
    """
    total = lags[-1][1] if lags else 0
    if not total:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in lags:
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


class LagHistogram(Collector):
    """A histogram without labels. For one thread: who observes and who collects never run at once."""

    def __init__(self, name: str, help_text: str, buckets: Sequence[float]) -> None:
        """`buckets` are the upper bounds, ascending, in seconds."""
        self._name = name
        self._help = help_text
        self._bounds = list(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, lags: Sequence[float]) -> None:
        """Count lags, in seconds."""
        counts, bounds = self._counts, self._bounds
        for lag in lags:
            counts[bisect_left(bounds, lag)] += 1
        self._sum += sum(lags)

    def counts(self) -> tuple[int, ...]:
        """How many lags there are in each bucket, so far; the last one is of those above all bounds."""
        return tuple(self._counts)

    def buckets(self, since: Sequence[int], until: Sequence[int]) -> Buckets:
        """Of the lags between two moments at which `counts` were read."""
        each = (after - before for before, after in zip(since, until, strict=True))
        return list(zip([*self._bounds, math.inf], accumulate(each), strict=True))

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        buckets, total = list[tuple[str, float]](), 0
        for bound, count in zip([*map(_text, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(self._name, self._help)
        family.add_metric([], buckets, self._sum)
        yield family


def _text(bound: float) -> str:
    return str(float(bound))
