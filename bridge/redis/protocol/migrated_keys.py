"""What one epoch knows of keys that come from other nodes of a cluster, or go to them.

If a key came here, and is gone, its entry stands for an expiration that no node has announced, or for a deletion. If
this epoch was notified of the key's end, nothing is left to announce. Nor is it if this epoch was notified of the key's
arrival, because it was then notified of everything since. If the deadline has passed while this epoch listened to the
slot, the expiration was notified, or will be in a moment: so the key is looked at twice. Otherwise the deadline passed
before, in a gap.

While its slot is on its way, a key that expires on the other node is deleted here. On a busy machine, such a deletion
may be handled when the slot is already known to be here. So a slot that came is *new* until a mark is back that was
left after that was known. Until then a deletion does not count as the key's own end, and no entry of it is placed.

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
"""For a key that is gone: its end was not notified; nothing is left to announce; a notification will decide."""

_Value = TypeVar("_Value")


class RecentClaims:
    """When the most recent notified expirations were claimed, by key, in all epochs of this process.

    When slots move, a node may get another ledger, and its epochs have not heard what those of the last one heard. The
    former ledger had to claim some keys without a deadline, because their entries were on their way. They must not be
    claimed again when the entries arrive.
    """

    def __init__(self, limits: EpochLimits) -> None:
        self._most = limits.remembered_keys
        self._ms = OrderedDict[bytes, int]()
        """The oldest ones first."""

    def add(self, redis_ms: int, keys: Iterable[bytes]) -> None:
        """These keys were claimed, at that time at the latest."""
        for key in keys:
            _keep(self._ms, key, redis_ms, self._most)

    def after(self, key: bytes, deadline_ms: int) -> bool:
        """Whether the key was claimed after that deadline."""
        return self._ms.get(key, 0) > deadline_ms


class MigratedKeys:
    """See the module."""

    def __init__(
        self, away: Callable[[bytes], bool], claims: RecentClaims, limits: EpochLimits, gap: Gap, since_ms: int
    ) -> None:
        """`away`: whether another node has a key, as far as is known. `gap`: the one that the epoch opened with.

        `since_ms`: from then on the epoch knows what was notified.
        """
        self.arrivals: deque[tuple[bytes, int]] = deque()
        """Keys that came from other nodes, and the deadlines of their entries there. A batch places them."""
        self.strays: set[int] = set()
        """Numbers of other ledgers that are on this node."""
        self._away = away
        self._claims = claims
        self._most = limits.remembered_keys
        self._gap = gap
        self._since_ms = since_ms
        self._claiming: list[bytes] = []
        """The notified keys that the next batch claims."""
        self._pass_ms = 0
        """When the pass over the waiting entries began."""
        self._slots: dict[int, int] = {}
        """Slots that came later, and when they were seen to be here."""
        self._new: set[int] = set()
        """Those of them that came since the last touch."""
        self._proved_by: dict[bytes, set[int]] = {}
        """Slots that are new as well, by the outstanding mark that was left after they came."""
        self._keys = OrderedDict[bytes, None]()
        """Keys whose whole story is known, the oldest ones first."""
        self._looked: set[bytes] = set()
        self._looked_before: set[bytes] = set()
        """In the last pass."""

    # What the interpreter notes and asks.

    def ended(self, key: bytes, kind: Kind) -> bool:
        """A notification says that the key is gone. Returns whether that happened here.

        A deletion in a slot that is not here, or was not, may be the other node's.
        """
        here = kind is Kind.EXPIRED or not (self._away(key) or self.new(key))
        if here:
            self.remember(key)
        return here

    def remember(self, key: bytes) -> None:
        """From now on everything that happens to this key is known. For most keys that will never matter."""
        if self._gap.open or slot_of(key) in self._slots or self._away(key):
            _keep(self._keys, key, None, self._most)

    def claiming(self, key: bytes) -> None:
        """The batch now being made claims it."""
        self._claiming.append(key)

    def applied(self, redis_ms: int) -> None:
        """That batch was applied."""
        self._claims.add(redis_ms, self._claiming)
        self._claiming.clear()

    def resolvable(self, key: bytes, state: bytes) -> bool:
        """Whether what a touch saw of a key can be resolved now."""
        # A key past its deadline also looks moved while its slot is leaving, and gone while its slot is arriving.
        # Once the slot is where it belongs, all nodes say so.
        if state != ALIVE and self._away(key) != (state == MOVED):
            # A slot may stay half-way for long. Its entries wait elsewhere, so the gap can be closed.
            return state == MOVED and self._gap.open
        if state == GONE:
            self.remember(key)
        return True

    def take(self, room: int, room_bytes: int) -> Iterator[tuple[bytes, int, bytes]]:
        """Entries to place, each with what is known of its key: see `operations.placed`."""
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
        """A touch is about to be sent. Everything notified before it is handled when its mark is back."""
        if self._new:
            self._proved_by[mark] = self._new
            self._new = set()

    def returned(self, mark: bytes) -> None:
        """A mark is back."""
        self._proved_by.pop(mark, None)

    def new(self, key: bytes) -> bool:
        """Whether notifications from before the key's slot came may still be unsent, or unhandled."""
        if not (self._new or self._proved_by):
            return False
        slot = slot_of(key)
        return slot in self._new or any(slot in slots for slots in self._proved_by.values())

    def went(self, slots: Collection[int]) -> None:
        """These slots are no longer here: other bridges are notified about their keys."""
        for slot in slots:
            self._slots.pop(slot, None)
        for new in (self._new, *self._proved_by.values()):
            new.difference_update(slots)
        for key in [key for key in self._keys if slot_of(key) in slots]:
            del self._keys[key]
        self._looked, self._looked_before = set(), set()

    def begin_pass(self, redis_ms: int) -> None:
        """A new pass over all entries begins. What had to be notified by the last pass is handled."""
        self._pass_ms = redis_ms
        self._looked, self._looked_before = set(), self._looked

    def verdict(self, key: bytes, deadline_ms: int) -> bytes:
        """What is known of the end of a key, if it is gone: UNKNOWN, KNOWN or LOOK_AGAIN."""
        if key in self._keys or self._claims.after(key, deadline_ms):
            return KNOWN
        if deadline_ms < self._slots.get(slot_of(key), self._since_ms):
            return UNKNOWN
        if deadline_ms >= self._pass_ms:
            return UNKNOWN  # if it is gone when it is read, its notification is on its way, and will find the entry
        if key in self._looked_before:
            return KNOWN
        self._looked.add(key)
        return LOOK_AGAIN


def _keep(last: OrderedDict[bytes, _Value], key: bytes, value: _Value, most: int) -> None:
    """Add the value as the last one. At most `most` are kept."""
    last[key] = value
    last.move_to_end(key)
    if len(last) > most:
        last.popitem(last=False)
