"""What is known of messages whose batch did not end: it is sent again, to another producer, but for these.

So a partition that fails for a long time does not make copies of what the others have taken.
"""

from collections.abc import Iterable, Sequence

from bridge.contracts import Message

MAX_REMEMBERED = 50_000
"""Messages; several times what delivery has under way at once."""
RECORDS_BYTES = 256 * 1024
"""Of a batch of records, at most, unless it is one message alone. More gains nothing."""
FEWEST_BYTES = 1024


class Outcomes:
    """The memory of a sink, from session to session."""

    def __init__(self) -> None:
        self.records_bytes = RECORDS_BYTES
        """The most bytes of a batch of records of several messages. A broker may teach us less."""
        self._reasons: dict[str, str | None] = {}
        """By id: None if it is stored, else why it never will be."""

    def still_open(self, batch: Sequence[Message]) -> tuple[Sequence[int], dict[int, str]]:
        """The indices of what is to be sent, and of what was rejected, with the reasons."""
        reasons = self._reasons
        if not reasons:
            return range(len(batch)), {}
        indices, rejected = [], {}
        for index, message in enumerate(batch):
            if message.id not in reasons:
                indices.append(index)
            elif (reason := reasons[message.id]) is not None:
                rejected[index] = reason
        return indices, rejected

    def stored(self, messages: Iterable[Message]) -> None:
        """The broker has these."""
        self._remember({message.id: None for message in messages})

    def reject(self, message: Message, reason: str) -> None:
        """The broker will never take it."""
        self._remember({message.id: reason})

    def shrink(self, too_large: int) -> None:
        """A batch of several messages, of so many bytes, was too large for the broker."""
        self.records_bytes = max(min(self.records_bytes, too_large) // 2, FEWEST_BYTES)

    def forget(self, batch: Sequence[Message]) -> None:
        """The batch has ended."""
        if self._reasons:
            for message in batch:
                self._reasons.pop(message.id, None)

    def _remember(self, more: dict[str, str | None]) -> None:
        self._reasons |= more
        for id_ in list(self._reasons)[: max(len(self._reasons) - MAX_REMEMBERED, 0)]:
            del self._reasons[id_]
