"""The inbox of an epoch: what Redis has notified, and the epoch has not handled yet.

A subscription puts hints in, in the order in which Redis sent them; whoever interprets them takes them out in that
order. Guarantees: nothing is reordered or merged, and nothing dropped but by request. Does not bound itself: it says
when it is full, and the subscription ends then, because a gap that is announced is better than a full memory. A
standby, which handles nothing, forgets all instead, and goes on.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from bridge.limits import WireLimits

Hint = tuple[bytes, bytes]
"""Channel, key."""


class Inbox:
    """See the module."""

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self.standing_by = False
        """Whether it forgets all it has when it is full."""
        self._hints: deque[Hint] = deque()
        self._key_bytes = 0

    def put(self, hints: Collection[Hint]) -> None:
        """Redis sent these, in this order."""
        self._hints.extend(hints)
        self._key_bytes += sum([len(key) for _, key in hints])
        if self.standing_by and self.full:
            self.clear()

    def take(self) -> Hint:
        """The oldest hint. Raises IndexError where there is none."""
        hint = self._hints.popleft()
        self._key_bytes -= len(hint[1])
        return hint

    @property
    def full(self) -> bool:
        """Whether more is waiting than may."""
        return len(self._hints) > self._limits.backlog_hints or self._key_bytes > self._limits.backlog_bytes

    def clear(self) -> None:
        """Forget all."""
        self._hints.clear()
        self._key_bytes = 0

    def drop_before(self, key: bytes) -> bool:
        """Forget what stands in front of the first hint of that key; whether there is one. If not, nothing changes."""
        for index, hint in enumerate(self._hints):
            if hint[1] == key:
                for _ in range(index):
                    self.take()
                return True
        return False

    def put_in_front(self, hints: Sequence[Hint]) -> None:
        """These come before all others."""
        self._hints.extendleft(reversed(hints))
        self._key_bytes += sum([len(key) for _, key in hints])

    def __len__(self) -> int:
        return len(self._hints)

    def __iter__(self) -> Iterator[Hint]:
        return iter(self._hints)
