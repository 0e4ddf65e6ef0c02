"""Dead letters: messages that the broker will never take, kept in Redis with their reasons. For the commands.

Guarantees: a dead letter goes only by `remove`, or by a `settle` after the broker has acked it. Its message keeps its
id. What another program wrote into the stream is shown, and can be removed, but is never published.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from bridge.contracts import DeadLetter, Entry, Origin, Settlement
from bridge.limits import LedgerLimits
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.nodes import Nodes
from bridge.redis.ledger.letters import letter_of, remark_of
from bridge.redis.protocol.budget import Portion
from bridge.redis.wire.conversation import conversation
from bridge.settings import Settings

Position = tuple[int, bytes]
PAGE = 500
"""Dead letters read in one command, and removed in one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter as it is kept."""

    position: Position
    """In which of the streams it is, counted from 0, and the id of its entry there: its time, and a number."""
    letter: DeadLetter | None
    """None if it cannot be read, because another program wrote it; or if there is a `remark` instead."""
    remark: str = ""
    """What a bridge has to say if there is no message. The key is in `about`."""
    about: bytes = b""

    @property
    def id(self) -> str:
        """Its id for people: that of its message; if it cannot be read, that of the stream's entry."""
        return self.position[1].decode() if self.letter is None else self.letter.event.id

    @property
    def died_ms(self) -> int:
        """When the broker had refused it: Unix milliseconds on Redis's clock."""
        return int(self.position[1].partition(b"-")[0])


class DeadLetters:
    """Those of one database, or of a whole cluster. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings) -> None:
        self._nodes = Nodes(settings)
        self._portion = Portion(LedgerLimits().reply_bytes, first=16)
        """Some have values of keys."""
        self._streams: list[tuple[Inspector, bytes]] = []
        """Of each shard, or primary; and where it is."""

    async def close(self) -> None:
        """Give the connections back."""
        await self._nodes.close()

    async def locate(self) -> None:
        """Find them. To be called first."""
        self._streams = []
        for inspector in (await self._nodes.find()).values():
            await inspector.locate()
            self._streams += [(inspector, names.dead) for names in await inspector.shards()]

    async def count(self) -> int:
        """How many there are."""
        count = 0
        for inspector, stream in self._streams:
            async with conversation(inspector.endpoint):
                count += int(await inspector.client.xlen(stream))
        return count

    async def page(self, after: Position | None, limit: int = PAGE) -> list[Kept]:
        """The next ones behind `after`: one shard's after the other's, the oldest of each first."""
        first, behind = after or (0, b"")
        found: list[Kept] = []
        for shard in range(first, len(self._streams)):
            least = b"(" + behind if behind and shard == first else b"-"
            inspector, stream = self._streams[shard]
            async with conversation(inspector.endpoint):
                count = self._portion.of(min(limit, PAGE) - len(found))
                reply = await inspector.client.xrange(stream, min=least, count=count)
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
            self._portion.took(len(entries), sum(len(value) for _, fields in entries for value in fields.values()))
            found += [_kept(shard, entry_id, fields) for entry_id, fields in entries]
            if len(entries) == count:  # there may be more of this one
                break
        return found

    async def at(self, position: Position) -> Kept | None:
        """The one that is there, if it still is."""
        shard, entry_id = position
        inspector, stream = self._streams[shard]
        async with conversation(inspector.endpoint):
            reply = await inspector.client.xrange(stream, min=entry_id, max=entry_id)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
        return _kept(shard, *entries[0]) if entries else None

    async def all(self) -> AsyncIterator[Kept]:
        """Each one, in the order of `page`, a page at a time."""
        after = None
        while page := await self.page(after):
            for kept in page:
                yield kept
            after = page[-1].position

    async def last(self) -> dict[int, bytes]:
        """The entry id of the newest one of each shard that has any."""
        newest = dict[int, bytes]()
        for shard, (inspector, stream) in enumerate(self._streams):
            async with conversation(inspector.endpoint):
                reply = await inspector.client.xrevrange(stream, count=1)
            if reply:
                newest[shard] = cast("list[tuple[bytes, object]]", reply)[0][0]
        return newest

    async def find(self, ids: Collection[str]) -> dict[str, Kept]:
        """Those with these ids, as far as they exist."""
        wanted, found = set(ids), dict[str, Kept]()
        async for kept in self.all():
            if kept.id in wanted:
                found[kept.id] = kept
                if len(found) == len(wanted):
                    break
        return found

    async def remove(self, positions: Sequence[Position]) -> int:
        """Remove these; how many of them were still there."""
        removed = 0
        for shard, (inspector, stream) in enumerate(self._streams):
            mine = [entry_id for of, entry_id in positions if of == shard]
            for start in range(0, len(mine), PAGE):
                async with conversation(inspector.endpoint):
                    removed += int(await inspector.client.xdel(stream, *mine[start : start + PAGE]))
        return removed


class Retrial:
    """Dead letters as an Outbox: delivery sends them again, under their ids, and what is acked is removed.

    What the broker refuses again stays where it is, and so does what cannot be read.
    """

    def __init__(self, letters: DeadLetters, last: Mapping[int, bytes], chosen: Sequence[Kept] | None = None) -> None:
        """`chosen` None: all up to the entries `last` of each shard."""
        self._letters = letters
        self._last = {shard: _order(entry_id) for shard, entry_id in last.items()}
        self._chosen = chosen
        self._read = 0
        self._after: Position | None = None
        self.sent = 0
        """Acked by the broker, and removed."""
        self.unreadable: list[str] = []
        """What was passed over."""
        self.remarks: list[str] = []
        """Likewise: a bridge wrote them, and there is no message in them."""
        self.refused: dict[str, str] = {}
        """Why the broker refuses the others again, by id."""

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `Outbox.read`."""
        while page := await self._next(limit):
            entries = [entry for kept in page if (entry := _entry(kept)) is not None]
            self.unreadable += [kept.id for kept in page if kept.letter is None and not kept.remark]
            self.remarks += [kept.id for kept in page if kept.remark]
            if entries:
                return entries
        return ()

    async def again(self, shard: int, entry_id: bytes) -> Entry | None:
        """See `Outbox.again`."""
        kept = await self._letters.at((shard, entry_id))
        return None if kept is None else _entry(kept)

    def holds(self, shard: int) -> bool:
        """See `Outbox.holds`."""
        del shard  # it reads all of them
        return True

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle`."""
        acked = [(done.shard, done.id) for done in settlements if not done.dead]
        await self._letters.remove(acked)
        self.sent += len(acked)
        self.refused |= {letter.event.id: letter.reason for done in settlements for letter in done.dead}

    async def _next(self, limit: int) -> Sequence[Kept]:
        if self._chosen is not None:
            page = self._chosen[self._read : self._read + limit]
            self._read += len(page)
            return page
        while page := await self._letters.page(self._after, limit):
            self._after = page[-1].position
            # A page that has only newer ones is not the end: those of other shards come after it.
            if chosen := [kept for kept in page if _order(kept.position[1]) <= self._last.get(kept.position[0], ())]:
                return chosen
        return ()


def _kept(shard: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Kept:
    return Kept((shard, entry_id), letter_of(fields), remark_of(fields), fields.get(b"hash", b""))


def _entry(kept: Kept) -> Entry | None:
    """As one of an outbox; None if there is no message in it."""
    if kept.letter is None:
        return None
    return Entry(kept.position[1], [kept.letter.event], kept.position[0], _line_of_its_own(kept))


def _line_of_its_own(kept: Kept) -> Origin:
    """Letters are chosen in any order, and the broker may have passed over the event where it was claimed."""
    return Origin.alone(kept.id)


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))
