"""What the last epoch of a shard left to the next: how much it handled, and perhaps a batch whose reply was lost.

Guarantees: such a batch is sent again to the same server, with its fence and sequence number, until it is answered, or
can no longer be applied. So what it claims is not lost. It never goes to another server, where the same expirations
may be claimed under other ids. A batch that may be too large to arrive, or to be answered, is cut into smaller ones,
but only when it is certain that the whole batch was not applied and never will be.
"""

from collections.abc import Iterator

from bridge.backoff import Backoff
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Batch, Lease
from bridge.redis.protocol.operations import each, notified, pieces, unproven
from bridge.redis.source.stop import Stop
from bridge.redis.wire.errors import Fenced


class Leftover:
    """See the module."""

    def __init__(self, shard: Shard) -> None:
        self.heard = 0
        """Notifications of expirations handled: kept here, because Redis may not know of the last ones."""
        self._place = b""
        self._batches: list[Batch] = []
        """To be answered in this order. Only the first may have been sent."""
        self._runtime = shard.runtime
        self._budget = shard.budget
        self._telemetry = shard.telemetry

    def by(self, epoch: Epoch) -> None:
        """Take what that epoch left. It is over."""
        self.heard, self._place = epoch.heard, epoch.place
        batch = epoch.in_doubt
        self._batches = [] if batch is None else [batch._replace(operations=unproven(batch.operations))]

    @property
    def place(self) -> bytes:
        """How far the stream is handled, for the bridge that goes on. Empty while a batch is in doubt."""
        return b"" if self._batches else self._place

    def forget_batch(self) -> None:
        """Another server is the primary: what the batch would claim may still be there to expire. The gap covers it."""
        self._batches = []

    def learn(self, lease: Lease) -> None:
        """A lease was granted: take over how much its former epochs handled, as far as Redis or this bridge knows."""
        own = lease.former == self._runtime.instance and not lease.place
        self.heard = max(lease.heard, self.heard) if own else lease.heard
        self._place = lease.place

    async def resend(self, ledger: Ledger, stop: Stop) -> None:
        """Send the batch in doubt until it is answered. Raises NotConnected; a source that is ending keeps trying."""
        limits = self._runtime.limits.source
        backoff = Backoff(limits.backoff_first, limits.resend)
        while self._batches:
            try:
                await self._resend_first(ledger)
            except NotConnected as error:
                self._budget.failed(self._runtime.clock.monotonic())
                if not stop.given:
                    raise  # the primary may be another server by now
                if stop.retired:  # the script finds its keys elsewhere, and the bridge that has them goes on
                    self._batches = []
                    return
                delay = backoff.next()
                self._telemetry.redis_unreached(str(error), delay)
                await self._runtime.clock.sleep(delay)  # until the time to drain is over
            except (Fenced, Refused):
                self._batches = []  # they can no longer be applied; the gap covers them

    async def _resend_first(self, ledger: Ledger) -> None:
        batch, most = self._batches[0], self._budget.bytes
        if not _divisible(batch, most):
            await ledger.apply(batch)
            self._applied(batch)
            return
        # An empty batch takes its number: if the whole is still on its way, it can no longer be applied. The pieces
        # store no place in the stream: a bridge that goes on from there would not know what they do.
        nothing = batch._replace(operations=(), heard=batch.heard - notified(batch.operations), place=b"")
        await ledger.apply(nothing)
        if await ledger.last_entry() >= (batch.fence, batch.seq):
            self._applied(batch)
        else:
            cut = [*_cut(batch, nothing, most), *self._batches[1:]]
            self._batches = [piece._replace(seq=batch.seq + number) for number, piece in enumerate(cut, 1)]

    def _applied(self, batch: Batch) -> None:
        self.heard, self._place = batch.heard, batch.place
        del self._batches[0]


def _divisible(batch: Batch, most_bytes: int) -> bool:
    """Whether it has more bytes of keys, and can be cut."""
    operations = list(each(batch.operations))
    return len(operations) > 1 and sum(len(operation[1]) for operation in operations) > most_bytes


def _cut(batch: Batch, before: Batch, most_bytes: int) -> Iterator[Batch]:
    """The same operations as smaller batches, behind `before`."""
    heard = before.heard
    for operations in pieces(batch.operations, most_bytes):
        heard += notified(operations)
        yield before._replace(heard=heard, operations=operations)
