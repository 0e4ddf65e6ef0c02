"""What an epoch was told of keys that come from other nodes of a cluster, and go to them.

The entry of a key that came here, and is gone, tells of an expiration that nobody has announced, or of a key that was
deleted. If this epoch was told of the key's end, or of its arrival, and so of all that became of it, nothing is left to
announce. If its deadline has passed since this epoch listens to the slot, its expiration would have been notified, or
is just about to be: so it is looked at twice. Else it passed before: in a gap.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection

from bridge.redis.channels import Kind
from bridge.redis.gap import Gap
from bridge.redis.slots import slot_of

TOLD_KEYS = 50_000
"""How many keys are remembered, the last ones."""

UNTOLD, SETTLED, LOOK = b"0", b"1", b"2"
"""Of a key that is gone: nobody was told of its end; nothing is left to announce; what is notified of it decides."""


class Told:
    """The knowledge of one epoch."""

    def __init__(self, away: Callable[[bytes], bool]) -> None:
        """`away`: whether another node has a key, for all that is known."""
        self.away = away
        self._gap: Gap | None = None
        self._since_ms = 0
        self._now_ms = 0
        self._slots: dict[int, int] = {}
        """Slots that came later, and when they were seen to be here."""
        self._keys = OrderedDict[bytes, None]()
        """The oldest ones first."""
        self._looked: set[bytes] = set()
        self._looked_before: set[bytes] = set()
        """In the last pass over what has moved."""

    def begin(self, gap: Gap) -> None:
        """The epoch listens, and has opened its gap."""
        self._gap, self._since_ms = gap, gap.start_ms

    @property
    def catching_up(self) -> bool:
        """Whether the gap is not reconciled yet."""
        return self._gap is None or self._gap.open

    def ended(self, key: bytes, kind: Kind) -> None:
        """A notification says that the key is gone."""
        # Of a slot that is not here (yet), a deletion may be the other node's.
        if kind is Kind.EXPIRED or not self.away(key):
            self.remember(key)

    def remember(self, key: bytes) -> None:
        """Whatever becomes of this key is known. For most keys that will never matter."""
        if self.catching_up or slot_of(key) in self._slots or self.away(key):
            self._keys[key] = None
            self._keys.move_to_end(key)
            if len(self._keys) > TOLD_KEYS:
                self._keys.popitem(last=False)

    def came(self, slots: Collection[int], redis_ms: int) -> None:
        """These slots are here now."""
        self._slots |= dict.fromkeys(slots, redis_ms)

    def went(self, slots: Collection[int]) -> None:
        """These are not any more: what becomes of their keys is told to others."""
        for slot in slots:
            self._slots.pop(slot, None)
        for key in [key for key in self._keys if slot_of(key) in slots]:
            del self._keys[key]
        self._looked, self._looked_before = set(), set()

    def look(self, redis_ms: int) -> None:
        """What has moved is gone through once more. What had to be notified by the last time, is handled."""
        self._now_ms = redis_ms
        self._looked, self._looked_before = set(), self._looked

    def of(self, key: bytes, deadline_ms: int) -> bytes:
        """What is known of the end of a key, if it is gone: UNTOLD, SETTLED or LOOK."""
        if key in self._keys:
            return SETTLED
        if deadline_ms < self._slots.get(slot_of(key), self._since_ms):
            return UNTOLD
        if deadline_ms >= self._now_ms:
            return UNTOLD  # should it be gone when it is read, its notification is on its way, and finds the entry
        if key in self._looked_before:
            return SETTLED
        self._looked.add(key)
        return LOOK
