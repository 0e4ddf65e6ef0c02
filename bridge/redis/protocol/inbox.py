"""The inbox of an epoch: what Redis has notified, and the epoch has not handled yet.

A subscription puts hints in, in the order in which Redis sent them; the interpreter takes them out in that order.
Guarantees: nothing is reordered or merged, and nothing is dropped unless asked. The inbox does not limit itself. It
says when it is full, and then the subscription ends, because an announced gap is better than a full memory. A standby,
which handles nothing, empties it instead, and goes on.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from operator import itemgetter

from bridge.limits import WireLimits

Hint = tuple[bytes, bytes]
"""Channel, key."""
_CHANNEL = itemgetter(0)


class Inbox:
    """See the module."""

    def __init__(self, limits: WireLimits, urgent: Collection[bytes] = ()) -> None:
        """`urgent`: channels whose hints must not wait for others."""
        self._limits = limits
        self._urgent_channels = frozenset(urgent)
        self._urgent = False
        """Whether such a hint has come since the inbox was empty."""
        self.standing_by = False
        """Whether it is emptied when it is full."""
        self._hints: deque[Hint] = deque()
        self._key_bytes = 0

    def put(self, hints: Collection[Hint]) -> None:
        """Redis sent these, in this order."""
        self._urgent = bool(self._urgent and self._hints) or not self._urgent_channels.isdisjoint(map(_CHANNEL, hints))
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
    def pressing(self) -> bool:
        """Whether the hints here must not wait for more: one is urgent, or they are worth a script already."""
        return bool(self._hints) and (self._urgent or len(self._hints) >= self._limits.pressing_hints)

    @property
    def full(self) -> bool:
        """Whether more hints wait than are allowed."""
        return len(self._hints) > self._limits.backlog_hints or self._key_bytes > self._limits.backlog_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._hints.clear()
        self._key_bytes = 0

    def drop_before(self, key: bytes) -> bool:
        """Forget what stands in front of the first hint of that key, if there is one. Returns whether there is."""
        for index, hint in enumerate(self._hints):
            if hint[1] == key:
                self._hints = deque(islice(self._hints, index, None))
                self._key_bytes = sum([len(kept) for _, kept in self._hints])
                return True
        return False

    def put_in_front(self, hints: Sequence[Hint]) -> None:
        """Put these before all others."""
        self._hints.extendleft(reversed(hints))
        self._key_bytes += sum([len(key) for _, key in hints])

    def __len__(self) -> int:
        return len(self._hints)

    def __iter__(self) -> Iterator[Hint]:
        return iter(self._hints)
