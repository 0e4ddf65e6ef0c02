"""From the journal of a gap to what would have been heard: hints, as a standby keeps them, from the place on. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.redis.backlog.journal import Entry, Happened, Journal, Unfillable
from bridge.redis.backlog.verdict import Verdict
from bridge.redis.protocol.inbox import Hint
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.place import Announcement, Place


@dataclass(frozen=True, slots=True)
class Translated:
    """What an epoch goes on with, behind the place."""

    hints: Sequence[Hint]
    announcements: Sequence[Announcement]
    held: Sequence[bytes]
    """Keys of which the former epoch had heard that they expired, and held that for a mark."""


class Translator:
    """See the module."""

    def __init__(self, journal: Journal, verdict: Verdict, place: Place, kinds: Mapping[bytes, Kind]) -> None:
        """`kinds`: what each channel means that is heard."""
        self._journal = journal
        self._verdict = verdict
        self._place = place
        self._kinds = kinds
        self._db = journal.names.db
        self._own_prefix = journal.names.own_prefix
        self._expired, self._gone, self._appeared = (
            b"__keyevent@%d__:%b" % (self._db, event) for event in (b"expired", b"del", b"expire")
        )

    def translate(self, announcements: Mapping[int, Announcement]) -> Translated:
        """`announcements`: by index in the journal. Raises Unfillable."""
        begin = self._begin()
        handled = self._place.heard - self._journal.anchor.heard
        number = self._journal.anchor.heard
        behind = [announcement for index, announcement in announcements.items() if index > begin]
        hints, held = list[Hint](), list[bytes]()
        for index, entry in enumerate(self._journal.entries):
            channel = self._channel(index, entry)
            if channel is None:
                continue
            if not handled and index in self._verdict.claimed:
                raise Unfillable("the former epoch has claimed more than it had handled")
            if self._kinds[channel] in {Kind.EXPIRED, Kind.ELSEWHERE} and handled > 0:
                if not self._verdict.expired[index]:
                    raise Unfillable("what the former epoch had handled of it cannot be told for certain")
                handled, number = handled - 1, number + 1
                if index > begin and channel == self._expired and self._was_ahead(entry.key[1], number, behind):
                    held.append(entry.key[1])
            elif index > begin:
                hints.append((channel, entry.key[1]))
            elif self._kinds[channel] in {Kind.EXPIRED, Kind.ELSEWHERE}:
                raise Unfillable("more has expired before the place than the former epoch had handled")
        if handled:
            raise Unfillable("fewer keys have expired than the former epoch had handled")
        return Translated(hints, behind, held)

    def _begin(self) -> int:
        """The index of the place's mark. Raises Unfillable."""
        for index, entry in enumerate(self._journal.entries):
            if entry.what is Happened.MARK and entry.key[1] == self._place.mark:
                return index
        raise Unfillable("the mark of the place is not in the stream")

    def _channel(self, index: int, entry: Entry) -> bytes | None:
        """Where it would have been notified; None where the bridge would not have heard of it, or need not."""
        db, name = entry.key
        if index in self._verdict.expired:
            channel = b"__keyevent@%d__:expired" % db
            canary = db == self._db and name.startswith(self._own_prefix) and name.endswith(b":canary")
            return channel if channel in self._kinds and not canary else None
        if db != self._db or entry.what is Happened.ANNOUNCED:
            return None
        if entry.what is Happened.MARK:
            return self._gone if name != self._journal.end else None
        return self._appeared if entry.what is Happened.SET else self._gone

    def _was_ahead(self, key: bytes, number: int, announcements: Sequence[Announcement]) -> bool:
        """Whether a batch had made the key ahead before the hint of that number was interpreted: see `takeover`."""
        for announcement in announcements:
            if key in announcement.keys:
                at = announcement.place
                if at.mark == self._place.mark and at.anchor is None:
                    raise Unfillable("the former epoch had just begun")
                if at.mark != self._place.mark or at.heard < number:
                    return True
        return False
