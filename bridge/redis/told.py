"""What an epoch was told of keys that come from other nodes of a cluster, and go to them.

The entry of a key that came here, and is gone, tells of an expiration that nobody has announced, or of a key that was
deleted. If this epoch was told of the key's end, or of its arrival, and so of all that became of it, nothing is left to
announce. If its deadline has passed since this epoch listens to the slot, its expiration would have been notified, or
is just about to be: so it is looked at twice. Else it passed before: in a gap.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection

from bridge.redis.channels import Kind
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
        self.since_ms = 0
        """When the epoch began to listen, on Redis's clock."""
        self._slots: dict[int, int] = {}
        """Slots that came later, and when they were seen to be here."""
        self._keys = OrderedDict[bytes, None]()
        """The oldest ones first."""
        self._looked: set[bytes] = set()

    def ended(self, key: bytes, kind: Kind) -> None:
        """A notification says that the key is gone."""
        # Of a slot that is not here (yet), a deletion may be the other node's.
        if kind is Kind.EXPIRED or not self.away(key):
            self.remember(key)

    def remember(self, key: bytes) -> None:
        """Whatever becomes of this key is known."""
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

    def of(self, key: bytes, deadline_ms: int) -> bytes:
        """What is known of the end of a key, if it is gone: UNTOLD, SETTLED or LOOK."""
        if key in self._keys or key in self._looked:
            self._looked.discard(key)
            return SETTLED
        if deadline_ms < self._slots.get(slot_of(key), self.since_ms):
            return UNTOLD
        self._looked.add(key)
        return LOOK
