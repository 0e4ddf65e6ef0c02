"""The last quarter of an hour: how many messages the broker acked, and how late. Costs the events nothing.

Every ten seconds the counters are read and kept, so that differences of them can be told; bounded by their number.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bridge.clock import Clock
from bridge.telemetry.lag import quantile
from bridge.telemetry.metrics import Metrics

STEP_SECONDS: Final = 10.0
STEPS: Final = 90


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one moment."""

    at: float
    """Monotonic seconds."""
    published: float
    lags: tuple[int, ...]
    """How many in each bucket of the histogram."""


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two readings."""

    seconds: float
    published: int
    p50: float | None
    """Of the lags, in seconds; None where none is known."""
    p99: float | None

    @property
    def per_second(self) -> float:
        """Messages."""
        return self.published / self.seconds if self.seconds else 0.0


class Window:
    """See the module."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._readings = deque([self._read()], maxlen=STEPS + 1)
        self._next: asyncio.TimerHandle | None = None

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Read the counters again and again while the context lasts. Needs a running loop."""
        self._wait()
        try:
            yield
        finally:
            if self._next is not None:
                self._next.cancel()

    def _wait(self) -> None:
        self._next = asyncio.get_running_loop().call_later(STEP_SECONDS, self._tick)

    def _tick(self) -> None:
        self.sample()
        self._wait()

    def sample(self) -> None:
        """Keep what the counters are now."""
        self._readings.append(self._read())

    def whole(self) -> Span:
        """From its beginning, or that of the process, until now."""
        return self._between(self._readings[0], self._read())

    def steps(self) -> list[Span]:
        """Its parts, the oldest first; the last one is not over yet."""
        return [self._between(since, until) for since, until in pairwise([*self._readings, self._read()])]

    def _read(self) -> Reading:
        (family,) = self._metrics.published.collect()
        return Reading(self._clock.monotonic(), family.samples[0].value, self._metrics.lag.counts())

    def _between(self, since: Reading, until: Reading) -> Span:
        lags = self._metrics.lag.buckets(since.lags, until.lags)
        return Span(
            until.at - since.at, round(until.published - since.published), quantile(0.5, lags), quantile(0.99, lags)
        )
