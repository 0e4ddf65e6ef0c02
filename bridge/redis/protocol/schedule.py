"""When to touch next: at the lowest deadline in the ledger, on Redis's clock, and at least once a heartbeat."""

from bridge.clock import Clock
from bridge.limits import EpochLimits
from bridge.redis.protocol.calls import State
from bridge.redis.protocol.marks import Round


class RedisClock:
    """Redis's clock, as read from every reply: kept from epoch to epoch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = 0.0

    def set(self, redis_ms: float) -> None:
        """Redis has just reported its time. The reply took a moment, so its clock is at least there: no early touch."""
        self._offset = redis_ms / 1000 - self._clock.monotonic()

    def now_ms(self) -> float:
        """Redis's clock now, in ms."""
        return (self._clock.monotonic() + self._offset) * 1000


class Schedule:
    """What is next in one epoch."""

    def __init__(self, clock: Clock, redis_clock: RedisClock, limits: EpochLimits) -> None:
        self._clock = clock
        self._redis_clock = redis_clock
        self._limits = limits
        self._touched = clock.monotonic() - limits.heartbeat
        self._not_before = 0.0
        self.lowest_ms: int | None = None
        """The first deadline in the ledger."""
        self.skip = 0
        """Due entries that cannot be resolved now, in front of all others."""

    def learn(self, state: State) -> None:
        """A script answered."""
        self._redis_clock.set(state.now_us / 1000)
        self.lowest_ms = state.lowest_ms

    def touched(self) -> None:
        """A touch was made just now."""
        self._touched = self._clock.monotonic()

    def finished(self, round_: Round) -> None:
        """Everything that a touch saw is resolved. What it had to leave is not touched again at once: do not spin."""
        if round_.purpose.walk:
            return
        self.skip = 0 if round_.complete else self.skip + round_.stuck
        if round_.complete and self.lowest_ms is not None and self.lowest_ms < round_.redis_ms:
            pause = self._limits.stuck_retry if round_.stuck else self._limits.retry
            self._not_before = self._clock.monotonic() + pause

    def heartbeat_in(self) -> float:
        """Seconds until the next sign of life."""
        return self._touched + self._limits.heartbeat - self._clock.monotonic()

    def due_in(self) -> float | None:
        """Seconds until the lowest deadline is past; None where the ledger is empty."""
        if self.lowest_ms is None:
            return None
        return max(self.until(self.lowest_ms), self._not_before - self._clock.monotonic())

    def overdue(self) -> bool:
        """Whether the lowest deadline is past."""
        due = self.due_in()
        return due is not None and due <= 0

    def until(self, deadline_ms: int) -> float:
        """Seconds until `deadline_ms` is past: Redis expires a key when `now > deadline`, both in whole ms."""
        return (deadline_ms + 1 - self._redis_clock.now_ms()) / 1000
