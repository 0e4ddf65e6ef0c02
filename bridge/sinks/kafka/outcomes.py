"""What is learned of messages by the end of a session: it is for the next one."""

from collections.abc import Sequence

from bridge.contracts import Message

MAX_REMEMBERED = 50_000
"""Messages; several times what delivery has under way at once."""
FEWEST_BYTES = 1024


class Outcomes:
    """The memory of a sink, from session to session."""

    def __init__(self, records_bytes: int) -> None:
        self.records_bytes = records_bytes
        """The most bytes of a batch of records of several messages. A broker may teach us less."""
        self._reasons: dict[str, str] = {}
        """By id: why it never will be stored."""

    def still_open(self, batch: Sequence[Message]) -> tuple[Sequence[int], dict[int, str]]:
        """The indices of what is to be sent, and of what was rejected, with the reasons."""
        reasons = self._reasons
        if not reasons:
            return range(len(batch)), {}
        indices, rejected = [], {}
        for index, message in enumerate(batch):
            if message.id not in reasons:
                indices.append(index)
            else:
                rejected[index] = reasons[message.id]
        return indices, rejected

    def reject(self, message: Message, reason: str) -> None:
        """The broker will never take it."""
        self._reasons[message.id] = reason
        while len(self._reasons) > MAX_REMEMBERED:
            del self._reasons[next(iter(self._reasons))]

    def shrink(self, too_large: int) -> None:
        """A batch of several messages, of so many bytes, was too large for the broker."""
        self.records_bytes = max(min(self.records_bytes, too_large) // 2, FEWEST_BYTES)

    def forget(self, batch: Sequence[Message]) -> None:
        """The batch has ended."""
        if self._reasons:
            for message in batch:
                self._reasons.pop(message.id, None)
