"""The canary: a key of the bridge's own that lives for a moment, every few seconds.

A touch sets it, a later one touches it behind its deadline. When the mark of that is back, its notification must have
come: so the canary proves SET → expiry → notification → handling, without any right to read the configuration, and
tells how late the bridge learns of an expiration. Where Redis says nothing of it, notifications of expirations are
mute, whatever the connection and the marks say.

It is not in the ledger, never claimed, and never published. How many have expired is counted in the lease, so that the
audit can leave them out.
"""

from enum import Enum, auto

from bridge.clock import Clock

INTERVAL = 2.0
"""Seconds from one to the next."""
TTL_MS = 100
LOOK = "look"


class Fate(Enum):
    """What is known of a canary."""

    OUT = auto()
    HEARD = auto()
    """Its expiration was notified."""
    VOID = auto()
    """It was evicted, deleted or moved away by somebody: it proves nothing."""


class Canary:
    """The canaries of one epoch, one at a time."""

    def __init__(self, key: bytes, clock: Clock, all_: frozenset[bytes] = frozenset()) -> None:
        """`all_`: those of all shards."""
        self.key = key
        self.all = all_ | {key}
        self._clock = clock
        self._set_at: float | None = None
        self._gone = False
        self.deadline_ms: int | None = None
        """Of the one that is out, on Redis's clock; None while none is."""
        self.fate = Fate.OUT
        self.void = 0
        """How many turned out void, and Redis was not told so yet."""

    def order(self) -> str | int:
        """What the next touch shall do about it: set one, look for the one that is out, or nothing."""
        if self.deadline_ms is not None:
            return LOOK
        now = self._clock.monotonic()
        if self._set_at is not None and now - self._set_at < INTERVAL:
            return ""
        self._set_at = now
        self.fate = Fate.OUT
        return TTL_MS

    def ended(self, *, expired: bool) -> None:
        """Redis has notified its end."""
        self.fate = Fate.HEARD if expired else Fate.VOID
        self.void += not expired

    def touched(self, order: str | int, void: int, redis_ms: int, *, gone: bool) -> None:
        """A touch has done that at `redis_ms`, and told Redis of so many that were void."""
        self.void -= void
        if order == TTL_MS:
            self.deadline_ms = redis_ms + TTL_MS
        self._gone = gone

    def marked(self) -> bool:
        """The mark of that touch is back, and all before it is handled. False: the canary died, and nobody said so."""
        if not self._gone:
            return True
        self._gone = False
        self.deadline_ms = None
        return self.fate is not Fate.OUT
