"""Takeover: how an epoch goes on where the former one was, with what a standby has heard.

What dies with a holder either changes nothing (its round: the entries stay due), or is derived here (which expirations
it held for a mark), or was announced in the stream before it mattered (which keys are ahead). So the next epoch is the
same one going on, under another fence. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    """Keys whose expiration the former epoch had heard of, and held."""
    count: int
    """Expirations of the ledger's keys that nobody had handled."""
    excess: int
    """How many of these are deletions. Which ones, nobody can tell."""
    surplus: int
    """How many deletions of other keys stand there as expirations, which are counted only."""
    record: Sequence[bytes]
    """The operation that says so, to be done together with the first of what it tells of."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What an epoch takes over."""

    place: Place
    announcements: Sequence[Announcement]
    """Those behind the place's mark, in the order of the stream."""
    boundary: bytes
    """The mark that the lease was granted with: what comes before it in the stream is of former epochs."""
    emptied: int = 0
    """How often the former epochs' batches removed the last entry, and the end of the ledger was not handled yet."""
    filling: Filling | None = None
    """Where nobody has listened: then nothing of it has to be skipped."""

    @property
    def excess(self) -> int:
        """How many expirations too many stand in the inbox: Redis has not counted them."""
        return 0 if self.filling is None else self.filling.excess + self.filling.surplus


def inherit(
    place: Place, boundary: bytes, announcements: Mapping[int, Announcement], inbox: Inbox, names: Names
) -> Inheritance | None:
    """What can be taken over; None where one of the bridge's own keys was lost meanwhile, which only a gap covers.

    `inbox` begins with the place's mark and holds the boundary. `announcements`: by index in it.
    """
    vital = {names.deadlines, names.lease, names.outbox}
    left, unexplained, emptied = place.hints + 1, 0, 0
    for index, (_, key) in enumerate(inbox):
        announcement = announcements.get(index)
        if announcement is not None:
            if announcement.emptied and unexplained:
                unexplained, emptied = unexplained - 1, emptied + 1
        elif left:
            left -= 1
        elif key == boundary:
            break
        elif key in vital:
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
    """Take that many notifications; number, from 1 on, and key of those that say that a key expired."""
    number = 0
    while number < count:
        channel, key = inbox.take()
        kind = kinds[channel]
        if kind is not Kind.ANNOUNCED:
            number += 1
            if kind is Kind.EXPIRED:
                yield number, key


def _knew(inheritance: Inheritance, key: bytes, number: int) -> bool:
    """Whether a batch had made the key ahead before the hint of that number, behind the place's mark, was interpreted.

    Otherwise the hint was claimed in that batch, or before, and is not held.
    """
    mark = inheritance.place.mark
    return any(
        key in announcement.keys and (announcement.place.mark != mark or announcement.place.hints < number)
        for announcement in inheritance.announcements
    )
