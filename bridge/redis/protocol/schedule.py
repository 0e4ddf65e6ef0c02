"""When to touch next: at the lowest deadline in the ledger, on Redis's clock, and at least once a heartbeat."""

from bridge.clock import Clock
from bridge.redis.protocol.calls import State

HEARTBEAT = 1.0
"""Seconds between touches when nothing is due: extends the lease, proves with its mark that notifications flow."""
RETRY = 0.005
"""Seconds before entries are touched again that a touch could not resolve (their own hints are still on the way)."""


class Schedule:
    """Redis's clock, as read from every reply, and what is next on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = 0.0
        self._touched = clock.monotonic() - HEARTBEAT
        self._not_before = 0.0
        self.lowest_ms: int | None = None
        """The first deadline in the ledger."""

    def set_clock(self, redis_ms: int) -> None:
        """Redis's clock was asked for, before the first script of an epoch."""
        self._offset = redis_ms / 1000 - self._clock.monotonic()

    def learn(self, state: State) -> None:
        """A script answered. Its reply took a moment, so Redis's clock is at least here: no touch is too early."""
        self._offset = state.now_us / 1e6 - self._clock.monotonic()
        self.lowest_ms = state.lowest_ms

    def touched(self) -> None:
        """A touch was made just now."""
        self._touched = self._clock.monotonic()

    def hold_back(self, seconds: float) -> None:
        """The last touch left something due that it saw: do not spin."""
        self._not_before = self._clock.monotonic() + seconds

    def redis_ms(self) -> float:
        """Redis's clock now, in ms."""
        return (self._clock.monotonic() + self._offset) * 1000

    def heartbeat_in(self) -> float:
        """Seconds until the next sign of life."""
        return self._touched + HEARTBEAT - self._clock.monotonic()

    def due_in(self) -> float | None:
        """Seconds until the lowest deadline is past; None where the ledger is empty."""
        if self.lowest_ms is None:
            return None
        return max(self.until(self.lowest_ms), self._not_before - self._clock.monotonic())

    def until(self, deadline_ms: int) -> float:
        """Seconds until `deadline_ms` is past: Redis expires a key when `now > deadline`, both in whole ms."""
        return (deadline_ms + 1 - self.redis_ms()) / 1000
