"""The order of a key's messages: while one is on its way, or stuck, the next ones wait behind it."""

from collections import deque
from collections.abc import Iterable

from bridge.delivery.parcels import Parcel


class KeyOrder:
    """Which keys have a message on its way, and what waits behind them. Knows no time."""

    def __init__(self) -> None:
        self.busy: set[bytes] = set()
        self._behind: dict[bytes, deque[Parcel]] = {}
        self.waiting = 0
        """Messages behind others."""
        self.waiting_bytes = 0
        """Of their bodies."""

    def wait(self, parcel: Parcel) -> None:
        """Its key is busy."""
        self._behind.setdefault(parcel.lane, deque()).append(parcel)
        self.waiting += 1
        self.waiting_bytes += len(parcel.message.body)

    def leave(self, lane: bytes) -> list[Parcel]:
        """The message on its way is set aside, and the key no longer busy. Returns what waited behind it."""
        self.busy.discard(lane)
        behind = self._behind.pop(lane, ())
        self.waiting -= len(behind)
        self.waiting_bytes -= sum([len(parcel.message.body) for parcel in behind])
        return list(behind)

    def release(self, keys: Iterable[bytes]) -> list[Parcel]:
        """The messages of these keys have their final receipts: what comes next, whose keys stay busy."""
        if not self._behind:
            self.busy.difference_update(keys)
            return []
        released = []
        for key in keys:
            behind = self._behind.get(key)
            if behind is None:
                self.busy.discard(key)
                continue
            parcel = behind.popleft()
            self.waiting -= 1
            self.waiting_bytes -= len(parcel.message.body)
            if not behind:
                del self._behind[key]
            released.append(parcel)
        return released
