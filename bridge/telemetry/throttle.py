"""One log line for what happens again and again: the first at once, then one an interval, with the count since."""

from bridge.clock import Clock

INTERVAL_SECONDS = 10.0


class Throttle:
    """Of one event. What comes behind the last line, and no more after an interval, is only in the event's metric."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.monotonic()
        self._count = 0

    def due(self, count: int) -> int:
        """It has happened `count` times: how often since the last line, if one is due now; else 0."""
        self._count += count
        now = self._clock.monotonic()
        if now < self._next:
            return 0
        self._next = now + INTERVAL_SECONDS
        count, self._count = self._count, 0
        return count
