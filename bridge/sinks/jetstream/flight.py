"""A batch under way: which of its messages are still without an answer, and what became of the others."""

import asyncio
from collections.abc import Container, Sequence

from bridge.contracts import Message, Receipts
from bridge.errors import BridgeError


class Flight:
    """One batch, from its first message sent to its last answer. Message `i` has the reply token `first + i`."""

    def __init__(self, messages: Sequence[Message], first: int, now: float) -> None:
        """`now` is the monotonic time, in seconds."""
        self.messages = messages
        self.first = first
        self.since = now
        self.sent = 0
        """How many have been looked at, to be sent or rejected."""
        self.remaining = len(messages)
        """How many messages have no answer yet."""
        self.rejected: dict[int, str] = {}
        """Why messages will never be taken; not given yet."""
        self.refused: dict[int, str] = {}
        """Why messages were not taken now; not given yet."""
        self.unrouted: list[int] = []
        """The messages that found no stream; not looked into yet."""
        self.taken: list[int] = []
        """The messages whose subject is taken, by themselves or by another; not looked into yet."""
        self.taken_sending = 0
        """The last sending of those that the stream has answered so."""
        self.first_sending = 0
        """The number of the sending that began it: see `Window`."""
        self.last_sending = 0
        """Of the last one in which all was that has no answer yet."""
        self.overdue = False
        """Whether an ack was ever missed: it takes no room from others since."""
        self.pause = 0.0
        """Seconds between the last time that it was sent again, being overtaken, and the next one at the earliest."""
        self.again_at = now
        """When that is."""
        self.news = asyncio.Event()
        """There is something to give."""
        self.error: BridgeError | None = None
        """Why there will be no more answers."""
        self._given: set[int] | None = None
        """Those that have a receipt, once some have."""
        self._remaining_seen = self.remaining
        self._since = now
        if not messages:
            self.news.set()

    @property
    def over(self) -> bool:
        """Whether there will be no more answers."""
        return not self.remaining or self.error is not None

    @property
    def unclear(self) -> bool:
        """Whether there are answers to be looked into."""
        return bool(self.unrouted or self.taken)

    def answered(self) -> None:
        """One more message has its answer. This is the hot path: once per message."""
        self.remaining -= 1
        if not self.remaining:
            self.news.set()

    def reject(self, index: int, reason: str) -> None:
        """Message `index` will never be taken."""
        self.rejected[index] = reason
        self.answered()

    def end(self, error: BridgeError) -> None:
        """Wait for no more answers."""
        if not self.over:
            self.error = error
            self.news.set()

    def quiet(self, now: float) -> float:
        """For how many seconds no answer has been seen."""
        if self.remaining != self._remaining_seen:
            self._remaining_seen = self.remaining
            self._since = now
        return now - self._since

    def restart(self, now: float) -> None:
        """Count the quiet time from now on."""
        self._since = now

    def give(self, receipts: Receipts, waiting: Container[int]) -> None:
        """Say what became of each message that has a clear answer. `waiting`: numbers without any."""
        count = len(self.messages)
        if self._given is None and not (self.refused or self.rejected or self.remaining or self.unclear):
            receipts.acked(range(count))
            return
        given = self._given = self._given or set()
        given.update(self.rejected, self.refused)
        aside = {*given, *self.unrouted, *self.taken}
        acked = [i for i in range(self.sent) if i not in aside and self.first + i not in waiting]
        given.update(acked)
        rejected, refused = self.rejected, self.refused
        self.rejected, self.refused = {}, {}
        receipts.acked(acked)
        receipts.rejected(rejected)
        receipts.refused(refused)
