"""Dead letters: messages that the broker would never take, kept in Redis with their reasons. For the commands.

Guarantees: a dead letter goes only by `remove`, or by a `settle` after the broker has acked it. Its message keeps its
id. What somebody else wrote into the stream is shown, and can be removed, but is never published.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from bridge.contracts import DeadLetter, Entry, Settlement
from bridge.redis.connection import Endpoint, conversation
from bridge.redis.letters import letter_of
from bridge.redis.names import Names
from bridge.redis.primary import Primary
from bridge.settings import Settings

PAGE = 500
"""Dead letters read in one command, and removed in one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter as it is kept."""

    entry_id: bytes
    """Of the stream's entry: its time, and a number."""
    letter: DeadLetter | None
    """None: it cannot be read, somebody else wrote it."""

    @property
    def id(self) -> str:
        """What people call it by: the id of its message; that of the stream's entry where it cannot be read."""
        return self.entry_id.decode() if self.letter is None else self.letter.event.id

    @property
    def died_ms(self) -> int:
        """When the broker had refused it: Unix milliseconds on Redis's clock."""
        return int(self.entry_id.partition(b"-")[0])


class DeadLetters:
    """Those of one database. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings) -> None:
        self._primary = Primary(settings, connections=2)
        self._stream = Names(settings.namespace, self._endpoint.db).dead

    @property
    def _endpoint(self) -> Endpoint:
        return self._primary.endpoint

    @property
    def _client(self) -> Redis:
        return self._primary.client

    async def close(self) -> None:
        """Give the connections back."""
        await self._primary.close()

    async def locate(self) -> None:
        """With Sentinel: find the primary. To be called first."""
        await self._primary.locate()

    async def count(self) -> int:
        """How many there are."""
        async with conversation(self._endpoint):
            return int(await self._client.xlen(self._stream))

    async def page(self, after: bytes | None, limit: int = PAGE) -> list[Kept]:
        """The next ones behind the entry `after`, oldest first."""
        async with conversation(self._endpoint):
            reply = await self._client.xrange(
                self._stream, min=b"-" if after is None else b"(" + after, count=min(limit, PAGE)
            )
        found = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
        return [Kept(entry_id, letter_of(fields)) for entry_id, fields in found]

    async def all(self) -> AsyncIterator[Kept]:
        """Each one, oldest first, a page at a time."""
        after = None
        while page := await self.page(after):
            for kept in page:
                yield kept
            after = page[-1].entry_id

    async def last(self) -> bytes | None:
        """The entry id of the newest one."""
        async with conversation(self._endpoint):
            reply = await self._client.xrevrange(self._stream, count=1)
        return cast("list[tuple[bytes, object]]", reply)[0][0] if reply else None

    async def find(self, ids: Collection[str]) -> dict[str, Kept]:
        """Those of these ids that there are."""
        wanted, found = set(ids), dict[str, Kept]()
        async for kept in self.all():
            if kept.id in wanted:
                found[kept.id] = kept
                if len(found) == len(wanted):
                    break
        return found

    async def remove(self, entry_ids: Sequence[bytes]) -> int:
        """Remove these entries; how many of them were still there."""
        removed = 0
        for start in range(0, len(entry_ids), PAGE):
            async with conversation(self._endpoint):
                removed += int(await self._client.xdel(self._stream, *entry_ids[start : start + PAGE]))
        return removed


class Retrial:
    """Dead letters as a Source: delivery sends them again, under their ids, and what is acked is removed.

    What the broker refuses once more stays where it is, and so does what cannot be read.
    """

    def __init__(self, letters: DeadLetters, last: bytes, chosen: Sequence[Kept] | None = None) -> None:
        """`chosen` None: all up to the entry `last`."""
        self._letters = letters
        self._last = _order(last)
        self._chosen = chosen
        self._read = 0
        self._after: bytes | None = None
        self.sent = 0
        """Acked by the broker, and removed."""
        self.unreadable: list[str] = []
        """What was passed over."""
        self.refused: dict[str, str] = {}
        """Why the broker refuses others once more, by id."""

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `Source.read`."""
        while page := await self._next(limit):
            entries = [Entry(kept.entry_id, [kept.letter.event]) for kept in page if kept.letter is not None]
            self.unreadable += [kept.id for kept in page if kept.letter is None]
            if entries:
                return entries
        return ()

    async def settle(self, settlements: Sequence[Settlement]) -> tuple[int, int]:
        """See `Source.settle`."""
        acked = [settlement.entry.id for settlement in settlements if not settlement.dead]
        await self._letters.remove(acked)
        kept = await self._letters.count()
        self.sent += len(acked)
        self.refused |= {letter.event.id: letter.reason for done in settlements for letter in done.dead}
        return 0, kept

    async def _next(self, limit: int) -> Sequence[Kept]:
        if self._chosen is not None:
            page = self._chosen[self._read : self._read + limit]
            self._read += len(page)
            return page
        page = await self._letters.page(self._after, limit)
        self._after = page[-1].entry_id if page else self._after
        return [kept for kept in page if _order(kept.entry_id) <= self._last]


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))
