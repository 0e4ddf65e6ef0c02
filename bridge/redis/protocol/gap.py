"""A gap: a time span in which notifications may have been missed, and how far it is reconciled.

Every epoch opens with one. It is closed when the ledger was walked, all entries that were overdue at its start are
resolved, the keyspace was scanned, and a mark behind all that has come back.
"""

from dataclasses import dataclass

from bridge.redis.protocol.calls import Applied

WALK_START = b"0"


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
    cursor: bytes | None = WALK_START
    """Where the walk of the ledger goes on; None when it is through."""
    again: bool = False
    """Whether another walk is to follow."""
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

    def applied(self, batch: Applied) -> None:
        """Take over what Redis has counted, with what a batch did about it."""
        if self.open:
            self.recovered, self.ambiguous = batch.recovered, batch.ambiguous

    def walked(self, cursor: bytes) -> None:
        """A part of the ledger was walked, up to `cursor`."""
        self.cursor = cursor
        if cursor == WALK_START:
            self.cursor = None
            self._begin_again()

    def walk_again(self) -> None:
        """Go through the whole ledger once more, when the walk under way is done, and the gap closed: slots of a
        cluster have gone to other nodes, and keys with them.
        """  # noqa: D205 - one sentence
        self.again = True
        self._begin_again()

    def _begin_again(self) -> None:
        if self.again and self.cursor is None and not self.open:
            self.again = False
            self.cursor = WALK_START

    def close(self) -> None:
        """It is reconciled."""
        self.start_ms = 0
        self._begin_again()
