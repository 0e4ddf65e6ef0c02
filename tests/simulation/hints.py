"""Which notification each claim tells of: exactly, since a key's claims are in the order of its notifications.

A claim by notification tells of the first one of its key that the stream of its epoch still held. That stream begins at
the boundary that the lease was granted with; one that is taken over hot is the former epoch's, going on. An epoch that
began at its boundary, and ended before it changed anything, has not been: the next one may go on where the former was.
"""

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from bridge.contracts import Entry
from bridge.expiration import Expiration, GapRecord, Identity, Via
from bridge.redis.ledger.entries import read_entry
from tests.simulation.redis.values import Stream, StreamId

if TYPE_CHECKING:
    from tests.simulation.lives import Life

IDENTITY = Identity("/redis", 0)


class Hints:
    """Those of users' keys that expired, of one shard of the ledger."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.gaps: set[str] = set()
        """Ids of its gap records."""
        self.told: dict[str, list[Life]] = defaultdict(list)
        """The expirations whose notifications were claimed under each id."""
        self._stream: dict[bytes, deque[tuple[int, Life]]] = defaultdict(deque)
        """What was notified of each key, and not claimed: number in the stream, and what it says."""
        self._notified = 0
        self._marks: dict[bytes, int] = {}
        """How much was notified before each mark."""
        self.fence = 0
        """In the lease."""
        self._boundary = 0
        """How much was notified before the boundary of that fence."""
        self._granted_place: bytes | None = None
        """In the lease, when it was granted."""
        self._cold = False
        """Whether that epoch has begun at its boundary, and has changed nothing yet."""
        self._last: StreamId = (0, 0)
        """Of the outbox."""

    def notified(self, life: "Life") -> None:
        """Subscribers are told that it expired."""
        self._notified += 1
        self._stream[life.key].append((self._notified, life))

    def marked(self, mark: bytes) -> None:
        """A script has left it."""
        self._marks[mark] = self._notified

    def waits(self, mark: bytes) -> bool:
        """Whether anything is not claimed that was notified before that mark."""
        before = self._marks.get(mark, 0)
        return any(waiting and waiting[0][0] <= before for waiting in self._stream.values())

    def granted(self, fence: int, place: bytes | None) -> None:
        """That fence is in the lease, with the place of the former epoch."""
        if fence != self.fence:
            self.fence, self._granted_place, self._cold = fence, place, False
            self._boundary = self._notified

    def cold(self, fence: int) -> None:
        """That epoch has begun without what was notified before its boundary."""
        self._cold = self._cold or fence == self.fence

    def placed(self, place: bytes | None) -> None:
        """That place is in the lease now."""
        if place != self._granted_place:
            self._drop()

    def _drop(self) -> None:
        """The epoch has left a trace: if it began at its boundary, nobody goes on from before that."""
        if self._cold:
            self._cold = False
            for waiting in self._stream.values():
                while waiting and waiting[0][0] <= self._boundary:
                    waiting.popleft()

    def applied(self, outbox: Stream) -> None:
        """A batch was: its entry, if it has made one, is the last one."""
        former, self._last = self._last, outbox.last
        if outbox.entries and outbox.last > former and outbox.entries[-1][0] == outbox.last:
            number, fields = outbox.entries[-1]
            pairs = iter(fields)
            said = dict(zip(pairs, pairs, strict=True))
            self._claimed(read_entry(IDENTITY, b"%d-%d" % number, said, self.shard))

    def passed(self, outbox: Stream) -> None:
        """Something else was put into it."""
        self._last = max(self._last, outbox.last)

    def _claimed(self, entry: Entry) -> None:
        self._drop()
        self.gaps |= {event.id for event in entry.events if isinstance(event, GapRecord)}
        for event in entry.events:
            if isinstance(event, Expiration) and event.via is Via.NOTIFICATION and self._stream[event.key]:
                _, life = self._stream[event.key].popleft()
                self.told[event.id].append(life)
