"""Fills a gap of one ledger: attach, read the part that no bridge has heard, decide, and hand it on.

Guarantees: what it hands on accounts for every expiration that Redis counts; else it hands on nothing, and the gap
opens as without it. Nothing is changed but that a script leaves a mark. It takes a bounded time, and bounded memory.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.clock import Clock
from bridge.errors import NotConnected, Refused
from bridge.limits import BacklogLimits
from bridge.redis.backlog.journal import Happened, Journal, Key, Unfillable
from bridge.redis.backlog.session import attached
from bridge.redis.backlog.translation import Translated, Translator
from bridge.redis.backlog.verdict import Facts, Verdict, expired_between, index_of, judge, unknown
from bridge.redis.ledger.entries import Unreadable, heard_of
from bridge.redis.ledger.scripts import Ledger, announcement
from bridge.redis.protocol.anchor import Anchor, Measured
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.inbox import Hint
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.operations import FilledGap, gap_filled
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place
from bridge.redis.protocol.takeover import Filling, Inheritance
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.telemetry.shard import ShardTelemetry


@dataclass(frozen=True, slots=True)
class Ground:
    """What a filler works on."""

    endpoint: Endpoint
    serving: Callable[[], Awaitable[Sequence[Endpoint]]]
    """Finds out from which servers the stream can be read, the best one first. Raises NotConnected or Refused."""
    ledger: Ledger
    names: Names
    matches: Callable[[bytes], object] | None
    """Whether a key is one of the ledger's; None where all are."""
    kinds: Mapping[bytes, Kind]
    """What each channel means."""
    word: bytes
    """By which the server replicates an expiration now."""
    scope: bytes
    """Of all that is heard: see `Place`."""
    complete: bool
    """Whether that is all that expires, in all databases."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of it."""

    hints: list[Hint]
    """To stand in the inbox before the inheritance's boundary."""
    inheritance: Inheritance
    span_ms: int


class Filler:
    """See the module."""

    def __init__(
        self, ground: Ground, limits: BacklogLimits, clock: Clock, telemetry: ShardTelemetry, cause: str
    ) -> None:
        """`cause`: of the gap."""
        self._telemetry = telemetry
        self._ground = ground
        self._limits = limits
        self._clock = clock
        self._cause = cause

    async def fill(self, lease: Lease) -> Filled | None:
        """What was notified behind the place of the lease, up to a mark; None where that cannot be told.

        Raises Fenced: the lease is lost.
        """
        began = self._clock.monotonic()
        try:
            filled = await self._fill(lease)
        except Unfillable as error:
            if lease.former is not None:  # else there was nothing to fill
                self._telemetry.gap_not_filled(str(error))
            return None
        filling = filled.inheritance.filling
        if filling is not None:
            took = round(self._clock.monotonic() - began, 3)
            self._telemetry.gap_filled(self._cause, filled.span_ms, filling.count, filling.excess, took)
        return filled

    async def _fill(self, lease: Lease) -> Filled:
        names, ground = self._ground.names, self._ground
        place, anchor = self._begin(lease)
        try:
            async with self._clock.timeout(self._limits.fill):
                boundary = names.mark(lease.fence, 0)
                now = await ground.ledger.measure(lease.fence, boundary)
                if now is None:
                    raise Unfillable("INFO is refused")
                expired_between(anchor.measured, now)  # else it need not be read
                journal = await self._read(anchor, boundary)
                announcements = _announced(journal)
                verdict = await self._judge(journal, now, place, announcements)
        except (TimeoutError, NotConnected, Refused) as error:
            raise Unfillable(str(error) or f"it took more than {self._limits.fill:g} s") from error
        translated = Translator(journal, verdict, place, ground.kinds).translate(announcements)
        return self._filled(lease, place, boundary, now, verdict, translated)

    def _begin(self, lease: Lease) -> tuple[Place, Anchor]:
        """Where the gap begins. Raises Unfillable."""
        ground, place = self._ground, Place.parse(lease.place)
        if place is None or place.anchor is None or lease.gap_open:
            raise Unfillable("the former epoch has left no place to go on from: a gap was open, or it had just begun")
        if place.scope != ground.scope:
            raise Unfillable("the former epoch has heard other channels, or for other keys (BRIDGE_KEYS)")
        if not ground.complete:
            raise Unfillable("not all databases can be listened to: Redis's count of expirations is of all of them")
        if not ground.word:
            raise Unfillable("CONFIG GET is refused: by which word Redis replicates an expiration is not known")
        if place.anchor.word != ground.word:
            raise Unfillable("lazyfree-lazy-expire was changed")
        return place, place.anchor

    async def _read(self, anchor: Anchor, end: bytes) -> Journal:
        problem = Unfillable("there is no replica to read from")
        for server in await self._ground.serving():
            try:
                return await self._read_from(server, anchor, end)
            except Unfillable as error:
                problem = error
        raise problem

    async def _read_from(self, server: Endpoint, anchor: Anchor, end: bytes) -> Journal:
        journal = Journal(self._ground.names, anchor, end, self._limits)
        async with attached(server, anchor.measured, self._limits) as session:
            async for command in session.commands():
                if journal.take(command):
                    break
        journal.complete()
        return journal

    async def _judge(
        self, journal: Journal, now: Measured, place: Place, announcements: Mapping[int, Announcement]
    ) -> Verdict:
        keys, scores = unknown(journal), dict[bytes, int | None]()
        for first in range(0, len(keys), self._limits.scores):
            part = keys[first : first + self._limits.scores]
            scores |= dict(zip(part, await self._ground.ledger.deadlines(part), strict=True))
        try:
            claims = [claim for packed in journal.claims for claim in heard_of(packed)]
        except Unreadable as error:
            raise Unfillable("what the former epoch has claimed cannot be read") from error
        begin = index_of(journal, place.mark)
        ahead = {key for at, announced in announcements.items() if at > begin for key in announced.keys}
        verdict = judge(journal, Facts(journal.anchor, now, self._is_ours, scores, claims, place.mark, ahead))
        if self._ground.endpoint.finder == CLUSTER and (verdict.excess or verdict.surplus):
            raise Unfillable("some deletions are no expirations: keys of slots that move away look like that, too")
        return verdict

    def _is_ours(self, key: Key) -> bool:
        db, name = key
        names, matches = self._ground.names, self._ground.matches
        return db == names.db and not name.startswith(names.own_prefix) and (matches is None or bool(matches(name)))

    def _filled(
        self, lease: Lease, place: Place, boundary: bytes, now: Measured, verdict: Verdict, translated: Translated
    ) -> Filled:
        expired, db = b"__keyevent@%d__:expired" % self._ground.names.db, self._ground.names.db
        count = sum(channel == expired and self._is_ours((db, key)) for channel, key in translated.hints)
        opened_ms = min(now.now_ms if lease.handled_ms is None else lease.handled_ms, now.now_ms)
        record = FilledGap(str(self._ground.endpoint), opened_ms, now.now_ms, self._cause, count, verdict.excess)
        filling = Filling(translated.held, count, verdict.excess, verdict.surplus, gap_filled(record))
        inheritance = Inheritance(place, translated.announcements, boundary, filling=filling)
        return Filled(list(translated.hints), inheritance, now.now_ms - opened_ms)


def _announced(journal: Journal) -> dict[int, Announcement]:
    """By index in the journal. Raises Unfillable."""
    found = dict[int, Announcement]()
    for index, entry in enumerate(journal.entries):
        if entry.what is Happened.ANNOUNCED:
            read = announcement(entry.key[1])
            if read is None:
                raise Unfillable("an announcement cannot be read")
            found[index] = read
    return found
