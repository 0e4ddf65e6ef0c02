"""The connection of one epoch that Redis tracks. The proof of a value holds for claims that are sent on it.

It is opened when first needed, and again when it was lost, each time after a pause. If Redis, a proxy or the user's
rights do not allow it, that is reported once, and it is tried again after a longer pause: rights may be granted. While
it is not open, values are captured without a proof: claims do not wait for it.
"""

import asyncio

from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.epoch.writer import Writer
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.wire.server import Server
from bridge.redis.wire.tracking import Tracking, track, trackable, tracks_undeclared

_DENIED = "the Redis user may not ask for invalidations (+client|id, &__redis__:invalidate)"
_CLUSTER = "this server tracks only keys that a script declares, which is not possible in a cluster"


class Tracked:
    """See the module."""

    def __init__(self, attempt: Attempt, server: Server, writer: Writer) -> None:
        """`writer`: sends on this connection while there is one."""
        self._declared_only = not tracks_undeclared(server)
        """Whether Redis tracks only keys that a script declares."""
        self._attempt = attempt
        self._writer = writer
        self._clock = attempt.shard.runtime.clock
        self._limits = attempt.shard.runtime.limits.epoch
        self._telemetry = attempt.shard.telemetry
        self._tracking: Tracking | None = None
        self._opening: asyncio.Task[Tracking] | None = None
        self._open_at: float | None = self._clock.monotonic()
        """When it may be opened; None: never."""
        subscription = attempt.ears.subscription
        if subscription.id is None or not subscription.invalidations:
            self._refused(_DENIED)
        elif not trackable(server, attempt.endpoint):
            self._refused(_CLUSTER)

    @property
    def ledger(self) -> Ledger | None:
        """The scripts, on that connection; None while there is none."""
        return self._writer.tracked

    @property
    def declare(self) -> bool:
        """Whether scripts have to declare the keys that they read, so that few can be captured at once."""
        return self._declared_only and self.ledger is not None

    async def open(self) -> bool:
        """Open it, if there is none, and it is time. Returns whether it has changed: it was opened, or lost."""
        lost = self._tracking is not None and self._writer.tracked is None
        if lost:
            self.close()
        if self._opening is None:
            if self._tracking is not None or self._open_at is None or self._clock.monotonic() < self._open_at:
                return lost
            self._open_at = self._clock.monotonic() + self._limits.tracking_retry
            listener = self._attempt.ears.subscription.id or 0
            self._opening = asyncio.create_task(track(self._attempt.endpoint, listener), name="tracking")
            await self._clock.first([self._opening], self._limits.tracking_patience)
        if not self._opening.done():
            return lost
        opened, self._opening = self._opening, None
        try:
            self._tracking = opened.result()
        except NotConnected:
            return lost
        except Refused as error:
            self._open_at = self._clock.monotonic() + self._limits.tracking_refused
            self._telemetry.values_doubted(str(error))
            return lost
        shard = self._attempt.shard
        limits = shard.runtime.limits.ledger
        self._writer.tracked = Ledger(self._tracking, shard.names, limits, shard.others)
        return True

    def close(self) -> None:
        """Give it back."""
        self._writer.tracked = None
        if self._opening is not None:
            self._opening.add_done_callback(_given_back)
            self._opening.cancel()
            self._opening = None
        if self._tracking is not None:
            self._tracking.close()
            self._tracking = None

    def refuse(self, reason: str) -> None:
        """Do without it."""
        self.close()
        self._refused(reason)

    def _refused(self, reason: str) -> None:
        self._open_at = None
        self._telemetry.values_doubted(reason)


def _given_back(opening: asyncio.Task[Tracking]) -> None:
    """If it was opened, it is not used."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
