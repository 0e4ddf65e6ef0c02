"""One batch on its way, from the first of its messages sent to the last receipt."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from bridge.contracts import Message, Receipts


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

    def refused(self, reasons: Mapping[int, str]) -> None:
        """Not now."""
        if reasons:
            self._receipts.refused(reasons)
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
