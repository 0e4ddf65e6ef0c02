"""A standby: it listens before it has the lease, so that it can go on where a dead holder stopped.

It keeps what was notified since the last mark that, according to the lease, the holder has handled. The grant of the
lease leaves a mark in the stream, the *boundary*. Once that is heard, everything that former epochs left is heard.

* *hot*: the mark of the former epoch's place is in the inbox. What follows it is inherited: no gap.
* *filled*: it is not, but Redis's replication backlog shows what was missed (`bridge/redis/backlog`). No gap.
* *cold*: neither. Everything up to the boundary is dropped, and a gap opens.
"""

from bridge.clock import Clock
from bridge.endings import Ending
from bridge.errors import NotConnected
from bridge.redis.backlog.filler import Filler
from bridge.redis.epoch.attempt import Ears
from bridge.redis.ledger.scripts import announcement
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.notifications import NEEDED_FLAGS, OF_FIELDS, Kind
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place
from bridge.redis.protocol.takeover import Inheritance, inherit


class Standby:
    """What a bridge has heard of one ledger's node while it waits for the lease."""

    def __init__(self, ears: Ears, names: Names, clock: Clock, patience: float) -> None:
        """`patience`: seconds to wait for the boundary."""
        self._ears = ears
        self._names = names
        self._clock = clock
        self._patience = patience
        ears.inbox.standing_by = True

    @property
    def present(self) -> bool:
        """Whether other bridges can see that it listens."""
        return self._ears.present

    @property
    def buffered(self) -> int:
        """How many hints it keeps."""
        return len(self._ears.inbox)

    def held(self, place: bytes) -> bool:
        """Another session has the lease, and has handled the stream that far: forget what is no longer needed.

        Returns whether this bridge could go on from there. Raises NotConnected if it no longer listens; or EpochEnded.
        """
        self._raise_if_ended()
        at = Place.parse(place)
        return at is not None and at.scope == self._ears.scope and self._ears.inbox.drop_before(at.mark)

    async def take_over(self, lease: Lease, filler: Filler | None = None) -> Inheritance | None:
        """Hear everything that former epochs left. Returns what can be inherited; None if a gap has to open.

        `filler`: finds what was not heard. Raises NotConnected if the boundary was not heard; or Fenced.
        """
        inbox = self._ears.inbox
        await self._hear(lease.boundary)
        inbox.standing_by = False
        inheritance = self._inheritance(lease)
        if inheritance is None and filler is not None:
            inheritance = await self._fill(lease, filler)
        if inheritance is None:
            inbox.drop_before(lease.boundary)
        return inheritance

    async def _fill(self, lease: Lease, filler: Filler) -> Inheritance | None:
        filled, inbox = await filler.fill(lease), self._ears.inbox
        if filled is None:
            return None
        boundary = filled.inheritance.boundary
        await self._hear(boundary)
        inbox.drop_before(boundary)
        inbox.put_in_front(filled.hints)
        return filled.inheritance

    def _inheritance(self, lease: Lease) -> Inheritance | None:
        ears, place = self._ears, Place.parse(lease.place)
        if place is None or not ears.present or place.scope != ears.scope:
            return None
        if not ears.inbox.drop_before(place.mark):
            return None
        announced = self._announced()
        if announced is None:
            return None
        of_fields = {channel for channel, kind in ears.kinds.items() if kind in OF_FIELDS}
        return inherit(place, lease.boundary, announced, ears.inbox, self._names, of_fields)

    def _announced(self) -> dict[int, Announcement] | None:
        """The announcements, by their index in the inbox; None if one of them cannot be read."""
        found: dict[int, Announcement] = {}
        for index, (channel, payload) in enumerate(self._ears.inbox):
            if self._ears.kinds[channel] is Kind.ANNOUNCED:
                read = announcement(payload)
                if read is None:
                    return None
                found[index] = read
        return found

    async def _hear(self, boundary: bytes) -> None:
        deadline = self._clock.monotonic() + self._patience
        while not any(key == boundary for _, key in self._ears.inbox):
            self._raise_if_ended()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise NotConnected(
                    "notifications are mute: the mark of the lease was not heard",
                    f"have notify-keyspace-events contain {NEEDED_FLAGS}",
                )
            self._ears.wake.clear()
            await self._clock.wait(self._ears.wake, left)

    def _raise_if_ended(self) -> None:
        subscription = self._ears.subscription
        if subscription.ended is not None:
            if subscription.ending is Ending.RELIEVED:
                raise EpochEnded(subscription.ending, subscription.ended)
            raise NotConnected(subscription.ended)
