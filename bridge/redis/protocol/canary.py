"""The canary: a key of the bridge's own that lives for a moment, every few seconds.

A touch sets it, a later one touches it behind its deadline. When the mark of that is back, its notification must have
come: so the canary proves SET → expiry → notification → handling, without any right to read the configuration, and
shows how late the bridge learns of an expiration. Where Redis says nothing of it, notifications of expirations are
mute, whatever the connection and the marks say.

A canary that was deleted is *void*: it proves nothing, and many in a row are a sign that what is heard is the stream of
another server, a replica say, to which the deletions are replicated. That it was evicted proves as much as that it
expired: only the server that evicts says so.

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
    EVICTED = auto()
    VOID = auto()
    """It was deleted or moved away: it proves nothing."""


class Canary:
    """The canaries of one epoch, one at a time."""

    def __init__(self, key: bytes, limits: EpochLimits, all_: frozenset[bytes] = frozenset()) -> None:
        """`all_`: those of all shards."""
        self.key = key
        self.all = all_ | {key}
        self.proved = False
        """Whether any has shown that what is heard is what this server does."""
        self._limits = limits
        self._voids = 0
        """In a row."""
        self._abandoned = False
        """Whether the last one is left to its fate, and counts as void."""
        self._set_ms = 0
        """On Redis's clock."""
        self._set_at: float | None = None
        self._gone = False
        self.deadline_ms: int | None = None
        """Of the one that is out, on Redis's clock; None while none is."""
        self._fate = Fate.OUT
        self.void = 0
        """How many turned out void since the last touch, which tells Redis."""

    @property
    def doubtful(self) -> bool:
        """Whether so many in a row were void that what is heard must be another server's stream."""
        return self._voids >= self._limits.canary_voids

    def order(self, now: float) -> str | int:
        """What the next touch shall do about it: set one, look for the one that is out, or nothing.

        `now` in monotonic seconds.
        """
        if self.deadline_ms is not None:
            return LOOK
        if self._set_at is not None and now - self._set_at < self._limits.canary:
            return NOTHING
        return self._limits.canary_ttl_ms

    def ended(self, *, expired: bool, evicted: bool = False) -> None:
        """Redis has notified its end."""
        if self._abandoned:
            self._abandoned = False
            self.void -= 1
        self._fate = Fate.HEARD if expired else Fate.EVICTED if evicted else Fate.VOID
        self.void += not expired

    def touched(self, order: str | int, now: float, redis_ms: int, *, void: int, gone: bool) -> None:
        """A touch ordered at `now` has done that at `redis_ms`, and subtracted those that were void.

        `gone`: whether the one that it looked for is.
        """
        self.void -= void
        if isinstance(order, int):
            self._set_at, self._set_ms = now, redis_ms
            self._fate = Fate.OUT
            self.deadline_ms = redis_ms + order
            self._abandoned = False
        elif order == LOOK and not gone and redis_ms < self._set_ms:
            # Redis's clock was set back: it may live for hours. The next one takes its place.
            self._abandoned, self._set_at, self.deadline_ms = True, None, None
            self.void += 1
        self._gone = gone

    def take_heard(self) -> int | None:
        """The deadline of the one whose expiration was notified, once; None while it is not."""
        deadline_ms = self.deadline_ms
        if deadline_ms is None or self._fate is Fate.OUT:
            return None
        self.deadline_ms = None
        if self._fate is Fate.VOID:
            self._voids += 1
            return None
        self.proved, self._voids = True, 0
        return deadline_ms if self._fate is Fate.HEARD else None

    def marked(self) -> bool:
        """The mark of that touch is back, and all before it is handled. False: it died, and Redis did not say so."""
        if not self._gone:
            return True
        self._gone = False
        self.deadline_ms = None
        return self._fate is not Fate.OUT
