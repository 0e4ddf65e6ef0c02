"""Takeover: how an epoch goes on where the former one stopped, with what a standby has heard.

What dies with a holder either changes nothing (its round: the entries stay due), or is derived here (which expirations
it held for a mark), or was announced in the stream before it mattered (which keys are ahead). So the next epoch
continues the former one, under another fence. Pure.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.marks import Marks
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place


@dataclass(frozen=True, slots=True)
class Filling:
    """What a gap was filled with: the inbox begins with it, up to the boundary."""

    held: Sequence[bytes]
    """Keys whose expiration the former epoch had heard, and held."""
    count: int
    """Expirations of the ledger's keys that no bridge had handled."""
    excess: int
    """How many of these are deletions. Which ones is not known."""
    surplus: int
    """How many deletions of other keys count as expirations. Those are only counted."""
    record: Sequence[bytes]
    """The operation that reports all this. It goes into the same batch as the first of those expirations."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What an epoch takes over."""

    place: Place
    announcements: Sequence[Announcement]
    """Those behind the place's mark, in the order of the stream."""
    boundary: bytes
    """The mark left when the lease was granted: what comes before it in the stream is of former epochs."""
    emptied: int = 0
    """How often the former epochs' batches emptied the ledger, while its end was not handled yet."""
    filling: Filling | None = None
    """Set if no bridge has listened: then nothing in the inbox has to be skipped."""

    @property
    def excess(self) -> int:
        """How many expirations too many are in the inbox: Redis has not counted them."""
        return 0 if self.filling is None else self.filling.excess + self.filling.surplus


def inherit(
    place: Place,
    boundary: bytes,
    announcements: Mapping[int, Announcement],
    inbox: Inbox,
    names: Names,
    of_fields: Container[bytes] = (),
) -> Inheritance | None:
    """What can be taken over; None if the stream has a hole that only a gap covers.

    That is so if one of the bridge's own keys was lost meanwhile, or if the mark of an announcement does not follow:
    then notifications were off for a moment. (Announcements are sent even then.) `inbox` begins with the place's mark,
    and holds the boundary. `announcements`: by index in it. `of_fields`: channels that say nothing about a key's end.
    """
    vital = {names.deadlines, names.lease, names.outbox}
    left, unexplained, emptied = place.hints + 1, 0, 0
    awaited = b""
    for index, (channel, key) in enumerate(inbox):
        announcement = announcements.get(index)
        if awaited and (announcement is not None or key.startswith(names.mark_prefix)):
            if announcement is not None or key != awaited:
                return None
            awaited = b""
        if announcement is not None:
            awaited = announcement.mark if announcement.keys else b""
            if announcement.emptied and unexplained:
                unexplained, emptied = unexplained - 1, emptied + 1
        elif left:
            left -= 1
        elif key == boundary:
            break
        elif key in vital and channel not in of_fields:
            if key != names.deadlines:
                return None
            unexplained += 1
    return None if unexplained else Inheritance(place, list(announcements.values()), boundary, emptied)


def skip_handled(inheritance: Inheritance, inbox: Inbox, marks: Marks, kinds: Mapping[bytes, Kind]) -> None:
    """Drop from the inbox what is handled, and let `marks` know what the former epoch knew at the place."""
    for announcement in inheritance.announcements:
        marks.batch_left(announcement.mark, announcement.keys)
    if inheritance.filling is not None:
        for key in inheritance.filling.held:
            marks.heard += 1
            marks.hold(key)
        return
    inbox.take()  # the place's mark
    for number, key in _expired(inheritance.place.hints, inbox, kinds):
        if marks.is_ahead(key) and _knew(inheritance, key, number):
            marks.heard += 1
            marks.hold(key)


def _expired(count: int, inbox: Inbox, kinds: Mapping[bytes, Kind]) -> Iterator[tuple[int, bytes]]:
    """Take that many notifications. Yields number (from 1 on) and key of those that say that a key expired."""
    number = 0
    while number < count:
        channel, key = inbox.take()
        kind = kinds[channel]
        if kind is not Kind.ANNOUNCED:
            number += 1
            if kind is Kind.EXPIRED:
                yield number, key


def _knew(inheritance: Inheritance, key: bytes, number: int) -> bool:
    """Whether a batch had made the key ahead before hint `number` after the place's mark was interpreted.

    Otherwise the hint was claimed in that batch, or before, and is not held.
    """
    mark = inheritance.place.mark
    return any(
        key in announcement.keys and (announcement.place.mark != mark or announcement.place.hints < number)
        for announcement in inheritance.announcements
    )
