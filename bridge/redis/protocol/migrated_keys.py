"""What one epoch knows of keys that come from other nodes of a cluster, and go to them.

An entry of a key that came here, and is gone, stands for an expiration that no node has announced, or for a key that
was deleted. If this epoch was notified of the key's end, or of its arrival, and so of all that became of it, nothing is
left to announce. If its deadline has passed since this epoch listens to the slot, its expiration would have been
notified, or is just about to be: so it is looked at twice. Else it passed before: in a gap.

While its slot is on its way, a key that expires on the other node is deleted here. Such a deletion may be handled, on a
busy machine, when the slot is known to be here already. So a slot that came is *new* until a mark is back that was left
after that was known: before, a deletion is not taken for the key's own end, and no entry of it is placed.

Pure: no I/O, no clock. `epoch/placement.py` and `epoch/strays.py` do what it takes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from bridge.limits import EpochLimits
from bridge.redis.protocol.calls import ALIVE, GONE, MOVED
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.slots import slot_of

UNKNOWN, KNOWN, LOOK_AGAIN = b"0", b"1", b"2"
"""Of a key that is gone: its end was not notified; nothing is left to announce; what is notified of it decides."""

_Value = TypeVar("_Value")


class RecentClaims:
    """When the last keys were claimed that were notified to have expired, in all epochs of this process.

    When slots move, a node may get another ledger, and its epochs have not heard what those of the last one did. What
    that had to claim without a deadline, since the entry was on its way, is not to be claimed again when it comes.
    """

    def __init__(self, limits: EpochLimits) -> None:
        self._most = limits.remembered_keys
        self._ms = OrderedDict[bytes, int]()
        """The oldest ones first."""

    def add(self, redis_ms: int, keys: Iterable[bytes]) -> None:
        """These were claimed, at that time at the latest."""
        for key in keys:
            _keep(self._ms, key, redis_ms, self._most)

    def after(self, key: bytes, deadline_ms: int) -> bool:
        """Whether the key was claimed when that deadline was past."""
        return self._ms.get(key, 0) > deadline_ms


class MigratedKeys:
    """See the module."""

    def __init__(
        self, away: Callable[[bytes], bool], claims: RecentClaims, limits: EpochLimits, gap: Gap, since_ms: int
    ) -> None:
        """`away`: whether another node has a key, for all that is known. `gap`: the one that the epoch opened with.

        `since_ms`: since when the epoch knows what was notified.
        """
        self.arrivals: deque[tuple[bytes, int]] = deque()
        """Keys that came from other nodes, and the deadlines of their entries there: to be placed by a batch."""
        self.strays: set[int] = set()
        """Numbers of other ledgers that are on this node."""
        self._away = away
        self._claims = claims
        self._most = limits.remembered_keys
        self._gap = gap
        self._since_ms = since_ms
        self._claiming: list[bytes] = []
        """What the next batch claims, as it was notified."""
        self._pass_ms = 0
        """When the pass over the entries to be placed began."""
        self._slots: dict[int, int] = {}
        """Slots that came later, and when they were seen to be here."""
        self._new: set[int] = set()
        """Those of them that came since the last touch."""
        self._proved_by: dict[bytes, set[int]] = {}
        """By the mark on its way that was left after they came: those that are new, too."""
        self._keys = OrderedDict[bytes, None]()
        """Keys of which is known whatever became of them, the oldest ones first."""
        self._looked: set[bytes] = set()
        self._looked_before: set[bytes] = set()
        """In the last pass."""

    # What the interpreter notes and asks.

    def ended(self, key: bytes, kind: Kind) -> bool:
        """A notification says that the key is gone. Whether that happened here.

        A deletion in a slot that is not here, or was not, may be the other node's.
        """
        here = kind is Kind.EXPIRED or not (self._away(key) or self.new(key))
        if here:
            self.remember(key)
        return here

    def remember(self, key: bytes) -> None:
        """Whatever becomes of this key is known. For most keys that will never matter."""
        if self._gap.open or slot_of(key) in self._slots or self._away(key):
            _keep(self._keys, key, None, self._most)

    def claiming(self, key: bytes) -> None:
        """The batch that is being made claims it."""
        self._claiming.append(key)

    def applied(self, redis_ms: int) -> None:
        """That batch was applied."""
        self._claims.add(redis_ms, self._claiming)
        self._claiming.clear()

    def resolvable(self, key: bytes, state: bytes) -> bool:
        """Whether what a touch saw of a key can be resolved now."""
        # Past its deadline, a key that is on its way from here also looks as if it had moved; one on its way to here,
        # as if it were gone. Once the slot is where it belongs, all nodes say so.
        if state != ALIVE and self._away(key) != (state == MOVED):
            # A slot may stay half-way for long: its entries wait elsewhere, and the gap can be closed.
            return state == MOVED and self._gap.open
        if state == GONE:
            self.remember(key)
        return True

    def take(self, room: int, room_bytes: int) -> Iterator[tuple[bytes, int, bytes]]:
        """Entries to be placed behind all that is known of their keys, and what that is: see `operations.placed`."""
        while self.arrivals and room > 0 and room_bytes > 0:
            key, deadline_ms = self.arrivals.popleft()
            room -= 1
            room_bytes -= len(key)
            yield key, deadline_ms, self.verdict(key, deadline_ms)

    # What is known of slots.

    def came(self, slots: Collection[int], redis_ms: int) -> None:
        """These slots are here now."""
        self._slots |= dict.fromkeys(slots, redis_ms)
        self._new.update(slots)

    def touching(self, mark: bytes) -> None:
        """A touch is about to be sent. All that was notified before it, is handled when its mark is back."""
        if self._new:
            self._proved_by[mark] = self._new
            self._new = set()

    def returned(self, mark: bytes) -> None:
        """A mark is back."""
        self._proved_by.pop(mark, None)

    def new(self, key: bytes) -> bool:
        """Whether something may be notified, or not handled yet, from before the slot of the key came."""
        if not (self._new or self._proved_by):
            return False
        slot = slot_of(key)
        return slot in self._new or any(slot in slots for slots in self._proved_by.values())

    def went(self, slots: Collection[int]) -> None:
        """These are not any longer: what becomes of their keys is notified to others."""
        for slot in slots:
            self._slots.pop(slot, None)
        for new in (self._new, *self._proved_by.values()):
            new.difference_update(slots)
        for key in [key for key in self._keys if slot_of(key) in slots]:
            del self._keys[key]
        self._looked, self._looked_before = set(), set()

    def begin_pass(self, redis_ms: int) -> None:
        """All entries are gone through once more. What had to be notified by the last time, is handled."""
        self._pass_ms = redis_ms
        self._looked, self._looked_before = set(), self._looked

    def verdict(self, key: bytes, deadline_ms: int) -> bytes:
        """What is known of the end of a key, if it is gone: UNKNOWN, KNOWN or LOOK_AGAIN."""
        if key in self._keys or self._claims.after(key, deadline_ms):
            return KNOWN
        if deadline_ms < self._slots.get(slot_of(key), self._since_ms):
            return UNKNOWN
        if deadline_ms >= self._pass_ms:
            return UNKNOWN  # should it be gone when it is read, its notification is on its way, and finds the entry
        if key in self._looked_before:
            return KNOWN
        self._looked.add(key)
        return LOOK_AGAIN


def _keep(last: OrderedDict[bytes, _Value], key: bytes, value: _Value, most: int) -> None:
    """As the last one; at most that many are kept."""
    last[key] = value
    last.move_to_end(key)
    if len(last) > most:
        last.popitem(last=False)
