"""A batch under way: which of its messages are still without an answer, and what became of the others."""

import asyncio
from collections.abc import Sequence

from bridge.contracts import Message, Receipts
from bridge.errors import BridgeError


class Flight:
    """One batch, from its first message sent to its last answer. Message `i` has the reply token `first + i`."""

    def __init__(self, messages: Sequence[Message], first: int, now: float) -> None:
        """`now` is the monotonic time, in seconds."""
        self.messages = messages
        self.first = first
        self.remaining = len(messages)
        """How many messages have no answer yet."""
        self.rejected: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        """Why messages were not taken now."""
        self.unrouted: list[int] = []
        """The messages that found no stream."""
        self.resends = 0
        self.landed: asyncio.Future[BridgeError | None] = asyncio.get_running_loop().create_future()
        """None: every message has its answer. An error: there will be no more."""
        self._remaining_seen = self.remaining
        self._since = now
        if not messages:
            self.end(None)

    def answered(self) -> None:
        """One more message has its answer. This is the hot path: once per message."""
        self.remaining -= 1
        if not self.remaining:
            self.end(None)

    def reject(self, index: int, reason: str) -> None:
        """Message `index` will never be taken."""
        self.rejected[index] = reason
        self.answered()

    def end(self, error: BridgeError | None) -> None:
        """Wait for no more answers."""
        if not self.landed.done():
            self.landed.set_result(error)

    def quiet(self, now: float) -> float:
        """For how many seconds no answer has been seen."""
        if self.remaining != self._remaining_seen:
            self._remaining_seen = self.remaining
            self._since = now
        return now - self._since

    def restart(self, now: float) -> None:
        """Count the quiet time from now on."""
        self._since = now

    def give(self, receipts: Receipts) -> None:
        """Say what became of each message."""
        count = len(self.messages)
        if not self.refused and not self.rejected:
            receipts.acked(range(count))
            return
        receipts.rejected(self.rejected)
        receipts.refused(self.refused)
        receipts.acked([index for index in range(count) if index not in self.rejected and index not in self.refused])
