"""Crowds: keys with almost the same deadline, too many for their values to be read within the usual lead.

The deadlines in each of the next short periods are counted now and then, and the rate of captures is measured. A crowd
is begun early enough to be done before its deadline. Pure: no I/O, no clock.
"""

from collections.abc import Sequence
from math import inf

from bridge.limits import EpochLimits

_STEPS_MS = (100,) * 20 + (1000,) * 14
"""The lengths of these periods, one after the other: short ones first, then longer ones."""
_MARGIN = 1.3
"""Other work has to be done meanwhile."""
_WEIGHT = 0.2
"""The weight of the last measurement against all before."""


class Crowds:
    """The crowds that one epoch knows."""

    def __init__(self, limits: EpochLimits) -> None:
        self._each_ms = 1000 / limits.capture_rate
        """How long the capture of one value takes."""
        self._few_ms = limits.crowd_ms
        self._bounds: Sequence[int] = ()
        self._crowds: list[tuple[float, int]] = []
        """When each has to begin, and its last deadline."""

    def bounds(self, now_ms: float) -> Sequence[int]:
        """Deadlines up to which the entries have to be counted."""
        bounds, at = list[int](), int(now_ms)
        for step in _STEPS_MS:
            at += step
            bounds.append(at)
        self._bounds = bounds
        return bounds

    def counted(self, counts: Sequence[int]) -> None:
        """How many entries are not listed yet, up to each of `bounds`."""
        self._crowds = []
        before = 0
        for step, bound, count in zip(_STEPS_MS, self._bounds, counts, strict=True):
            if (count - before) * self._each_ms > self._few_ms:
                self._crowds.append((bound - step - count * self._each_ms * _MARGIN, bound))
            before = count

    def took(self, count: int, ms: float) -> None:
        """Learn from how many values were captured in that time."""
        self._each_ms += (ms / count - self._each_ms) * _WEIGHT

    def begin_ms(self, listed_ms: int) -> float:
        """When the first crowd that reaches past that deadline has to begin; infinity if there is none."""
        return min((begin for begin, end in self._crowds if end > listed_ms), default=inf)

    def end_ms(self, now_ms: float) -> int:
        """The last deadline of the crowds that should have begun by now; 0 if there is none."""
        return max((end for begin, end in self._crowds if begin <= now_ms), default=0)
