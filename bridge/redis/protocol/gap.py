"""A gap: a time span in which notifications may have been missed, and what is known of it.

An epoch that did not inherit the stream opens with one. It is closed when the ledger was walked (`walk.py`), all
entries that were overdue at its start are resolved, the keyspace was scanned, a canary has proved that notifications
come, and a mark behind all that is back. Until then it grows: what is mute for good is one gap.
"""

from dataclasses import dataclass

from bridge.redis.protocol.calls import Applied


@dataclass(slots=True)
class Gap:
    """The gap that an epoch opened with."""

    cause: str
    opened_ms: int
    """Up to here everything is known to have been handled, by the former epoch."""
    start_ms: int
    """When the subscription was confirmed. An entry whose deadline lies before this passed it in the gap, or before.
    0 once the gap is closed.
    """
    recovered: int = 0
    """Expirations with a deadline within the gap, claimed though their notification was missed."""
    ambiguous: int = 0
    """Entries that were overdue at the start, and found refreshed, persisted, deleted or expired again; and those whose
    key was gone before its deadline.
    """

    @property
    def open(self) -> bool:
        """Whether it is not reconciled yet."""
        return self.start_ms > 0

    def clock_is_at(self, redis_ms: int) -> None:
        """Redis's clock. Where it was set back, what is past its deadline no longer is, and no longer the gap's."""
        self.start_ms = min(self.start_ms, redis_ms)

    def applied(self, batch: Applied) -> None:
        """Take over what Redis has counted, with what a batch did about it."""
        if self.open:
            self.recovered, self.ambiguous = batch.recovered, batch.ambiguous

    def close(self) -> None:
        """It is reconciled."""
        self.start_ms = 0
