"""Stuck messages for which memory has no room: they stay in the outbox, and are read again once there is room.

Guarantees: of each message only its key and its place in the outbox are kept. Later messages of its key do not overtake
it: they are set aside as well. Entries are taken up again in the outbox's order, so a key's messages keep theirs.
Bounded. Knows no time.
"""

import heapq
from collections.abc import Container
from itertools import count

from bridge.delivery.parcels import Parcel, Progress
from bridge.limits import DeliveryLimits


class Aside:
    """What was set aside, by entry and by key."""

    def __init__(self, limits: DeliveryLimits) -> None:
        self._limits = limits
        self._entries: dict[Progress, dict[int, tuple[bytes, str]]] = {}
        """Lane and channel of each message, by its position in the entry."""
        self._first: dict[int, list[tuple[int, int, int, int, Progress]]] = {}
        """By shard, a heap of these entries, in the order of the outbox. One that was read again may be here twice."""
        self._number = count()
        self._lanes: dict[bytes, int] = {}
        """How many messages of each."""
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many messages."""
        return self._count

    @property
    def full(self) -> bool:
        """Whether no more may be set aside, and so no more may be read."""
        return self._count >= self._limits.aside or self._bytes >= self._limits.aside_bytes

    @property
    def shards(self) -> list[int]:
        """Those of its entries."""
        return list(self._first)

    def holds(self, lane: bytes) -> bool:
        """Whether a message of that lane was set aside: the next one must not overtake it."""
        return lane in self._lanes

    def holds_none_of(self, lanes: set[bytes]) -> bool:
        """Whether no message of these lanes was set aside."""
        return self._lanes.keys().isdisjoint(lanes)

    def add(self, parcel: Parcel, channel: str) -> None:
        """Set it aside."""
        progress, lane = parcel.progress, parcel.lane
        places = self._entries.get(progress)
        if places is None:
            places = self._entries[progress] = {}
            shard, entry_id = progress.place
            fence, _, number = entry_id.partition(b"-")
            place = int(fence), int(number), shard, next(self._number), progress
            heapq.heappush(self._first.setdefault(shard, []), place)
        places[parcel.position] = lane, channel
        self._lanes[lane] = self._lanes.get(lane, 0) + 1
        self._count += 1
        self._bytes += len(lane)

    def first(self, besides: Container[int] = ()) -> Progress | None:
        """The entry to be taken up next, of any shard but these."""
        return min((heap[0] for shard, heap in self._first.items() if shard not in besides), default=(None,))[-1]

    def is_first(self, progress: Progress) -> bool:
        """Whether no entry of its shard is to be taken up before it."""
        return self._first[progress.place[0]][0][-1] is progress

    def take(self, progress: Progress) -> dict[int, str]:
        """Take up the first entry of a shard: the channels of its messages, by position, ascending."""
        shard = progress.place[0]
        heapq.heappop(self._first[shard])
        if not self._first[shard]:
            del self._first[shard]
        places = self._entries.pop(progress)
        for lane, _ in places.values():
            self._lanes[lane] -= 1
            if not self._lanes[lane]:
                del self._lanes[lane]
            self._bytes -= len(lane)
        self._count -= len(places)
        return {position: places[position][1] for position in sorted(places)}
