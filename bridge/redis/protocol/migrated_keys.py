"""What an epoch was told of keys that come from other nodes of a cluster, and go to them.

The entry of a key that came here, and is gone, tells of an expiration that nobody has announced, or of a key that was
deleted. If this epoch was told of the key's end, or of its arrival, and so of all that became of it, nothing is left to
announce. If its deadline has passed since this epoch listens to the slot, its expiration would have been notified, or
is just about to be: so it is looked at twice. Else it passed before: in a gap.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.slots import slot_of

TOLD_KEYS = 50_000
"""How many keys are remembered, the last ones."""

UNTOLD, SETTLED, LOOK = b"0", b"1", b"2"
"""Of a key that is gone: nobody was told of its end; nothing is left to announce; what is notified of it decides."""


class Claimed:
    """When the last keys were claimed that were notified to have expired, in all epochs of this process.

    When slots move, a node may get another ledger, and its epochs have not heard what those of the last one did. What
    that had to claim without a deadline, as the entry was on its way yet, is not to be claimed again when it comes.
    """

    def __init__(self) -> None:
        self._ms = OrderedDict[bytes, int]()
        """The oldest ones first."""

    def by(self, redis_ms: int, keys: Iterable[bytes]) -> None:
        """These were, at that time at the latest."""
        for key in keys:
            _keep(self._ms, key, redis_ms)

    def since(self, key: bytes, deadline_ms: int) -> bool:
        """Whether it was when that deadline was past."""
        return self._ms.get(key, 0) > deadline_ms


_Value = TypeVar("_Value")


def _keep(last: OrderedDict[bytes, _Value], key: bytes, value: _Value) -> None:
    """As the last one, of so many."""
    last[key] = value
    last.move_to_end(key)
    if len(last) > TOLD_KEYS:
        last.popitem(last=False)


class Told:
    """The knowledge of one epoch."""

    def __init__(self, away: Callable[[bytes], bool], claimed: Claimed | None = None) -> None:
        """`away`: whether another node has a key, for all that is known. `claimed`: by all epochs."""
        self.away = away
        self._claimed = Claimed() if claimed is None else claimed
        self._claiming: list[bytes] = []
        """What the next batch claims, as it was notified."""
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
            _keep(self._keys, key, None)

    def claims(self, key: bytes) -> None:
        """The batch that is being made claims it."""
        self._claiming.append(key)

    def applied(self, redis_ms: int) -> None:
        """It was applied."""
        self._claimed.by(redis_ms, self._claiming)
        self._claiming.clear()

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
        if key in self._keys or self._claimed.since(key, deadline_ms):
            return SETTLED
        if deadline_ms < self._slots.get(slot_of(key), self._since_ms):
            return UNTOLD
        if deadline_ms >= self._now_ms:
            return UNTOLD  # should it be gone when it is read, its notification is on its way, and finds the entry
        if key in self._looked_before:
            return SETTLED
        self._looked.add(key)
        return LOOK
