"""One batch on its way, from the first of its messages sent to the last receipt."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from bridge.contracts import Message, Receipts

OutboxPlace = tuple[int, int, int]
"""Both numbers of an entry's id, and the index of the event in it: an outbox is read in this order."""


class Load:
    """Counts the receipts of one batch, and hands them on."""

    def __init__(self, messages: Sequence[Message], receipts: Receipts) -> None:
        self.messages = messages
        self._receipts = receipts
        self._open = len(messages)
        self.done = asyncio.Event()
        """Each message has its receipt."""
        self._count(0)

    def acked(self, indices: Collection[int]) -> None:
        """The broker has these."""
        if indices:
            self._receipts.acked(indices)
            self._count(len(indices))

    def refused(self, reasons: Mapping[int, str], *, alone: bool = False) -> None:
        """Not now. `alone`: see `Receipts.refused`."""
        if reasons:
            self._receipts.refused(reasons, alone=alone)
            self._count(len(reasons))

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """Never."""
        if reasons:
            self._receipts.rejected(reasons)
            self._count(len(reasons))

    def _count(self, count: int) -> None:
        self._open -= count
        if not self._open:
            self.done.set()


class OpenLoad(Load):
    """One that also knows which messages have no receipt yet, and where each stands in its outbox."""

    def __init__(self, messages: Sequence[Message], receipts: Receipts, places: Sequence[OutboxPlace]) -> None:
        super().__init__(messages, receipts)
        self.places = places
        self.open = set(range(len(messages)))
        """Their indices."""

    def acked(self, indices: Collection[int]) -> None:
        """See `Load`."""
        self.open.difference_update(indices)
        super().acked(indices)

    def refused(self, reasons: Mapping[int, str], *, alone: bool = False) -> None:
        """See `Load`."""
        self.open.difference_update(reasons)
        super().refused(reasons, alone=alone)

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """See `Load`."""
        self.open.difference_update(reasons)
        super().rejected(reasons)
