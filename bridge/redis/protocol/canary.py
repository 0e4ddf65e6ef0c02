"""The canary: a key of the bridge's own that lives for a moment, every few seconds.

A touch sets it, and a later one touches it after its deadline. When the mark of the later touch is back, the canary's
notification must have come. So the canary proves SET → expiry → notification → handling, without the right to read the
configuration, and shows how late the bridge learns of an expiration. If Redis does not notify it, notifications of
expirations are mute, even if connection and marks work.

A canary that was deleted is *void*: it proves nothing. Many in a row are a sign that the stream is that of another
server, for example of a replica, to which deletions are replicated. An evicted canary proves as much as an expired one:
only the server that evicts notifies that.

A canary is not in the ledger, never claimed, and never published. The lease counts how many have expired, so that the
audit can leave them out. Pure: no I/O, no clock.
"""

from enum import Enum, auto

from bridge.limits import EpochLimits

NOTHING, LOOK = "", "look"
"""Orders to a touch. A third kind is a number: set a canary with that TTL in ms."""


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
        """Whether any canary has proved that the stream is this server's."""
        self._limits = limits
        self._voids = 0
        """In a row."""
        self._abandoned = False
        """Whether the last one is given up, and counts as void."""
        self._set_ms = 0
        """On Redis's clock."""
        self._set_at: float | None = None
        self._gone = False
        self.deadline_ms: int | None = None
        """The deadline of the present canary, on Redis's clock; None while there is none."""
        self._fate = Fate.OUT
        self.void = 0
        """How many turned out void since the last touch. The next touch tells Redis."""

    @property
    def doubtful(self) -> bool:
        """Whether too many in a row were void: the stream must be another server's."""
        return self._voids >= self._limits.canary_voids

    def order(self, now: float) -> str | int:
        """What the next touch should do about it: set one, look for the present one, or nothing.

        `now` in monotonic seconds.
        """
        if self.deadline_ms is not None:
            return LOOK
        if self._set_at is not None and now - self._set_at < self._limits.canary:
            return NOTHING
        return self._limits.canary_ttl_ms

    def ended(self, *, expired: bool, evicted: bool = False) -> None:
        """Redis has notified the end of the canary."""
        if self._abandoned:
            self._abandoned = False
            self.void -= 1
        self._fate = Fate.HEARD if expired else Fate.EVICTED if evicted else Fate.VOID
        self.void += not expired

    def touched(self, order: str | int, now: float, redis_ms: int, *, void: int, gone: bool) -> None:
        """A touch ordered at `now` has carried that out at `redis_ms`, and subtracted those that were void.

        `gone`: whether the canary that it looked for is gone.
        """
        self.void -= void
        if isinstance(order, int):
            self._set_at, self._set_ms = now, redis_ms
            self._fate = Fate.OUT
            self.deadline_ms = redis_ms + order
            self._abandoned = False
        elif order == LOOK and not gone and self._outlives(redis_ms):
            # Redis's clock was set back, or another program has changed its TTL: it may live for hours. The next one
            # takes its place.
            self._abandoned, self._set_at, self.deadline_ms = True, None, None
            self.void += 1
        self._gone = gone

    def _outlives(self, redis_ms: int) -> bool:
        """Whether it will live for longer than it should: at its deadline, the touch itself would have ended it."""
        late_ms = redis_ms - (self.deadline_ms or redis_ms)
        return redis_ms < self._set_ms or late_ms > self._limits.canary_late_ms

    def take_heard(self) -> int | None:
        """The deadline of a canary whose expiration was notified: returned once, else None."""
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
        """The mark of that touch is back, and everything before it is handled. False: it died, but was not notified."""
        if not self._gone:
            return True
        self._gone = False
        self.deadline_ms = None
        return self._fate is not Fate.OUT
