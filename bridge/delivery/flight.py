"""A load on its way to the broker, and the receipts that come for it."""

from collections.abc import Collection, Mapping
from typing import Protocol

from bridge.contracts import Batch
from bridge.delivery.parcels import Load, Parcel


class Tower(Protocol):
    """The part that acts on receipts."""

    def landed(self, flight: "Flight") -> None:
        """The usual case: all messages of the flight are acked, by one receipt."""

    def acked(self, flight: "Flight", parcels: list[Parcel]) -> None:
        """Some are acked."""

    def refused(self, flight: "Flight", reasons: list[tuple[Parcel, str]], *, alone: bool) -> None:
        """Some were not taken now. `alone`: see `Receipts.refused`."""

    def rejected(self, flight: "Flight", reasons: list[tuple[Parcel, str]]) -> None:
        """Some will never be taken."""


class Flight:
    """Implements `Receipts` for one load. It stays whole while no part of it has a receipt: that costs the least."""

    def __init__(self, load: Load, tower: Tower, now: float, *, stuck: bool = False, whole: bool = False) -> None:
        """`now`: monotonic seconds. `stuck`: all of it counts as stuck, not as in flight.

        `whole`: refused messages stay in it, because the whole load has to keep its order.
        """
        self.load = load
        self.since = now
        self.stuck = stuck
        self._whole = whole
        self._tower = tower
        self._parcels: list[Parcel] | None = None
        self._open: dict[int, None] | None = None
        """The indices without a receipt, once some have one."""
        self._landed = False

    @property
    def left(self) -> int:
        """Messages without a receipt."""
        if self._open is not None:
            return len(self._open)
        return 0 if self._landed else len(self.load.messages)

    def batch(self) -> Batch:
        """What a session is to publish."""
        return Batch(self.load.messages, self.load.runs)

    def open_parcels(self) -> list[Parcel]:
        """Those without a receipt."""
        parcels = self._all()
        return [parcels[index] for index in self._indices()]

    def give_up(self, ids: Collection[str]) -> None:
        """Ignore any receipt that may still come for the messages with these ids."""
        messages = self.load.messages
        for index in [index for index in self._indices() if messages[index].id in ids]:
            del self._indices()[index]

    def acked(self, indices: Collection[int]) -> None:
        """See `Receipts`."""
        if self._open is None and len(indices) == len(self.load.messages):
            if not self._landed:
                self._landed = True
                self._tower.landed(self)
            return
        if parcels := [parcel for index in indices if (parcel := self._take(index)) is not None]:
            self._tower.acked(self, parcels)

    def refused(self, reasons: Mapping[int, str], *, alone: bool = False) -> None:
        """See `Receipts`."""
        if self._whole:
            parcels, open_ = self._all(), self._indices()
            taken = [(parcels[index], why) for index, why in reasons.items() if index in open_]
        else:
            taken = self._taken(reasons)
        if taken:
            self._tower.refused(self, taken, alone=alone)

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """See `Receipts`."""
        if taken := self._taken(reasons):
            self._tower.rejected(self, taken)

    def _taken(self, reasons: Mapping[int, str]) -> list[tuple[Parcel, str]]:
        return [(parcel, why) for index, why in reasons.items() if (parcel := self._take(index)) is not None]

    def _take(self, index: int) -> Parcel | None:
        """The message, unless it has its receipt."""
        parcels, open_ = self._all(), self._indices()
        if index not in open_:
            return None
        del open_[index]
        return parcels[index]

    def _all(self) -> list[Parcel]:
        if self._parcels is None:
            self._parcels = self.load.parcels()
        return self._parcels

    def _indices(self) -> dict[int, None]:
        if self._open is None:
            self._open = {} if self._landed else dict.fromkeys(range(len(self.load.messages)))
        return self._open
