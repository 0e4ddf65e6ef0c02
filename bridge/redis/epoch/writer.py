"""The scripts of one epoch: one at a time, each with its mark; those that change the ledger with a sequence number.

Guarantees: what was sent, and not answered, is in `in_doubt`; the ledger is never changed under an old fence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bridge.endings import Ending
from bridge.errors import NotConnected
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.protocol.calls import Applied, Batch, Touch, Touched
from bridge.redis.protocol.endings import EpochEnded


class Writer:
    """See the module."""

    def __init__(self, attempt: Attempt) -> None:
        self.in_doubt: Batch | None = None
        """A batch whose reply is awaited or lost: to be sent again until it is answered."""
        self.fence = attempt.lease.fence
        self._ledger = attempt.ledger
        self._names = attempt.shard.names
        self._budget = attempt.shard.budget
        """It learns which scripts were answered."""
        self._clock = attempt.shard.runtime.clock
        self._seq = 0
        self._marks = 0
        self._announces = attempt.ears.present
        """Whether the next epoch may go on where this is."""
        self._anchors = attempt.shard.runtime.limits.backlog.anchor if attempt.ears.word else None
        """Seconds from a touch that measures to the next one, at least; None: none does."""
        self._measured_at: float | None = None

    def told(self, place: bytes) -> bytes:
        """The place as the next epoch may be told it: not at all, once a batch could not announce what it did."""
        return place if self._announces else b""

    async def apply(
        self, operations: Sequence[bytes], gap_start_ms: int, heard: int, place: bytes
    ) -> tuple[bytes, Applied]:
        """Send a batch. Its mark, and what it did.

        `heard`: how many expirations are handled with it, in all epochs. `place`: how far the stream is.
        """
        mark, place = self.next_mark(), self.told(place)
        batch = Batch(self.fence, self._next_seq(), gap_start_ms, heard, mark, operations, place)
        self.in_doubt = batch
        with self._measured():
            applied = await self._ledger.apply(batch)
        self.in_doubt = None
        if applied is None:
            raise EpochEnded(
                Ending.LEASE_LOST, "lease lost: the ledger says that a batch was applied before it was sent"
            )
        self._announces = self._announces and applied.announced
        return batch.mark, applied

    async def touch(self, touch: Touch) -> Touched:
        """See `Ledger.touch`. While no gap is open, it may be an anchor for the next one."""
        now = self._clock.monotonic()
        measure = self._anchors is not None and not touch.gap_open
        if measure and (self._measured_at is None or now - self._measured_at >= (self._anchors or 0)):
            self._measured_at = now
            touch = replace(touch, measure=True)
        with self._measured():
            return await self._ledger.touch(touch)

    async def adopt(self, number: int) -> int | str:
        """Take in a part of another ledger: see `Ledger.adopt`."""
        return await self._ledger.adopt(self.fence, self._next_seq(), number)

    def next_mark(self) -> bytes:
        """The mark of the next script."""
        self._marks += 1
        return self._names.mark(self.fence, self._marks)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        try:
            yield
        except NotConnected:
            self._budget.failed(self._clock.monotonic())
            raise
        self._budget.worked(self._clock.monotonic())

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq
