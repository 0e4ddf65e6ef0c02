"""The canary: a key of the bridge's own that lives for a moment, every few seconds.

A touch sets it, a later one touches it behind its deadline. When the mark of that is back, its notification must have
come: so the canary proves SET → expiry → notification → handling, without any right to read the configuration, and
shows how late the bridge learns of an expiration. Where Redis says nothing of it, notifications of expirations are
mute, whatever the connection and the marks say.

It is not in the ledger, never claimed, and never published. How many have expired is counted in the lease, so that the
audit can leave them out. Pure: no I/O, no clock.
"""

from enum import Enum, auto

from bridge.limits import EpochLimits

NOTHING, LOOK = "", "look"
"""Orders to a touch; another one is the TTL, in ms, of a canary that it shall set."""


class Fate(Enum):
    """What is known of a canary."""

    OUT = auto()
    HEARD = auto()
    """Its expiration was notified."""
    VOID = auto()
    """It was evicted, deleted or moved away: it proves nothing."""


class Canary:
    """The canaries of one epoch, one at a time."""

    def __init__(self, key: bytes, limits: EpochLimits, all_: frozenset[bytes] = frozenset()) -> None:
        """`all_`: those of all shards."""
        self.key = key
        self.all = all_ | {key}
        self._limits = limits
        self._set_at: float | None = None
        self._gone = False
        self.deadline_ms: int | None = None
        """Of the one that is out, on Redis's clock; None while none is."""
        self._fate = Fate.OUT
        self.void = 0
        """How many turned out void since the last touch, which tells Redis."""

    def order(self, now: float) -> str | int:
        """What the next touch shall do about it: set one, look for the one that is out, or nothing.

        `now` in monotonic seconds.
        """
        if self.deadline_ms is not None:
            return LOOK
        if self._set_at is not None and now - self._set_at < self._limits.canary:
            return NOTHING
        return self._limits.canary_ttl_ms

    def ended(self, *, expired: bool) -> None:
        """Redis has notified its end."""
        self._fate = Fate.HEARD if expired else Fate.VOID
        self.void += not expired

    def touched(self, order: str | int, now: float, redis_ms: int, *, void: int, gone: bool) -> None:
        """A touch ordered at `now` has done that at `redis_ms`, and subtracted those that were void.

        `gone`: whether the one that it looked for is.
        """
        self.void -= void
        if isinstance(order, int):
            self._set_at = now
            self._fate = Fate.OUT
            self.deadline_ms = redis_ms + order
        self._gone = gone

    def take_heard(self) -> int | None:
        """The deadline of the one whose expiration was notified, once; None while it is not."""
        deadline_ms = self.deadline_ms
        if deadline_ms is None or self._fate is Fate.OUT:
            return None
        self.deadline_ms = None
        return deadline_ms if self._fate is Fate.HEARD else None

    def marked(self) -> bool:
        """The mark of that touch is back, and all before it is handled. False: it died, and Redis did not say so."""
        if not self._gone:
            return True
        self._gone = False
        self.deadline_ms = None
        return self._fate is not Fate.OUT
