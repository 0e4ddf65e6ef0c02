"""The pace of a scan: how many keys the next script scans, and when.

While a gap is open, everything waits for the scan: its parts are large, and follow each other at once. Otherwise the
scan can wait. Its parts are small, because other clients wait for Redis meanwhile. If touches take longer than usual,
Redis is busy, and after each part the scan rests for that extra time.
"""

import math

from bridge.clock import Clock
from bridge.limits import EpochLimits
from bridge.redis.protocol.findings import Findings
from bridge.redis.protocol.gap import Gap

_FORGET = 1.01
"""The factor by which each touch raises what counts as usual. So it adapts when touches become slower for long."""


class Pace:
    """That of one epoch."""

    def __init__(self, clock: Clock, limits: EpochLimits, gap: Gap, findings: Findings) -> None:
        self._clock = clock
        self._limits = limits
        self._gap = gap
        self._findings = findings
        self._usual: float | None = None
        """Seconds that a quick touch takes, including the way to Redis."""
        self._slower = 0.0
        """By how many seconds the last touch took longer, but at most the longest rest."""
        self._next_at = -math.inf

    @property
    def rest(self) -> float:
        """Seconds to rest after a part."""
        return 0.0 if self._gap.open else self._slower

    def touched(self, seconds: float) -> None:
        """A touch was answered after that time."""
        self._usual = seconds if self._usual is None else min(seconds, self._usual * _FORGET)
        slower = seconds - 2 * self._usual - self._limits.slow_touch
        self._slower = min(max(slower, 0.0), self._limits.scan_rest)

    def due_in(self) -> float:
        """Seconds until the next part may be scanned; infinite if there is none."""
        if not self._findings.waiting:
            return math.inf
        return 0.0 if self._gap.open else max(self._next_at - self._clock.monotonic(), 0.0)

    def keys(self) -> int:
        """How many keys a script may hold so that a part fits in as well; 0 if no part is due."""
        if self._gap.open:
            return self._limits.found_keys
        return 0 if self.due_in() > 0 else self._limits.part_keys

    def scanned(self) -> None:
        """A script with a part of the scan was answered."""
        self._next_at = self._clock.monotonic() + self.rest
