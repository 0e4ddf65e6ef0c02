"""What the last epoch of a shard left to the next: how much it handled, and perhaps a batch whose reply was lost.

Guarantees: such a batch is sent again to the same server, with its fence and sequence number, until it is answered, or
can no longer be applied: what it claims must not be lost. It never goes to another server, where the same expirations
may be claimed under other ids.
"""

from bridge.backoff import Backoff
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Batch, Lease
from bridge.redis.source.stop import Stop
from bridge.redis.wire.errors import Fenced


class Leftover:
    """See the module."""

    def __init__(self, shard: Shard) -> None:
        self.heard = 0
        """Notifications of expirations handled: kept here, because Redis may not know of the last ones."""
        self._place = b""
        self._batch: Batch | None = None
        self._runtime = shard.runtime
        self._telemetry = shard.telemetry

    def by(self, epoch: Epoch) -> None:
        """That epoch is over."""
        self.heard, self._place, self._batch = epoch.heard, epoch.place, epoch.in_doubt

    @property
    def place(self) -> bytes:
        """How far the stream is handled, for whoever goes on. Empty while a batch may or may not be applied."""
        return b"" if self._batch is not None else self._place

    def forget_batch(self) -> None:
        """Another server is the primary: what the batch would claim may still be there to expire. The gap covers it."""
        self._batch = None

    def learn(self, lease: Lease) -> None:
        """A lease was granted: what its former epochs have handled, for all that Redis, or this bridge, knows."""
        own = lease.former == self._runtime.instance and not lease.place
        self.heard = max(lease.heard, self.heard) if own else lease.heard
        self._place = lease.place

    async def resend(self, ledger: Ledger, stop: Stop) -> None:
        """Have the batch in doubt answered. Raises NotConnected, unless the source is to end: then it keeps trying."""
        limits = self._runtime.limits.source
        backoff = Backoff(limits.backoff_first, limits.resend)
        while self._batch is not None:
            try:
                await ledger.apply(self._batch)
                self.heard, self._place = self._batch.heard, self._batch.place
            except NotConnected as error:
                if not stop.given:
                    raise  # the primary may be another server by now
                if stop.retired:  # the script finds its keys elsewhere, and the bridge that has them goes on
                    self._batch = None
                    return
                delay = backoff.next()
                self._telemetry.redis_unreached(str(error), delay)
                await self._runtime.clock.sleep(delay)  # until the time to drain is over
            except (Fenced, Refused):
                self._batch = None  # it can no longer be applied; the gap covers it
            else:
                self._batch = None
