"""The outbox of one shard. `outboxes.py` makes the Outbox of `bridge/contracts.py` of all of them.

Guarantees: every entry is read at least once in every epoch, oldest first, for as long as this bridge holds the lease;
what is settled is gone for good. An entry that cannot be read (somebody else wrote or damaged it) holds up nothing: it
becomes a dead letter as it is, or the first fields of a huge one do. Does not remember what was read in another epoch:
who reads skips what it has under way.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from bridge.contracts import Entry, Settlement
from bridge.expiration import Identity
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.ledger.letters import fields_of
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Argument
from bridge.telemetry.shard import ShardTelemetry

START = b"0-0"
FIELDS_KEPT = 500
"""Of an entry that cannot be read. Lua hands some thousands of words to a command at most."""


class Outbox:
    """Claimed expirations of one shard."""

    def __init__(
        self,
        ledger: Ledger,
        identity: Identity,
        limit: int,
        telemetry: ShardTelemetry,
        wake: Callable[[], None] = lambda: None,
        *,
        shard: int = 0,
    ) -> None:
        """`wake` is called when there may be more to read."""
        self.shard = shard
        self._ledger = ledger
        self._identity = identity
        self._limit = limit
        self._telemetry = telemetry
        self._was_full = False
        self._cursor = START
        self.ours = False
        """Whether an epoch of this bridge holds the lease, or did until its server was lost."""
        self.news = False
        """Whether there may be more to read."""
        self._wake = wake
        self.depth = 0
        """Expirations waiting, as last heard."""

    # What the epoch calls.

    def open(self) -> None:
        """A new epoch holds the lease: read from the beginning."""
        self._cursor = START
        self.ours = True
        self._was_full = False  # what was said of it then holds no more
        self.added()

    def move(self, ledger: Ledger) -> None:
        """Another server is the primary: its outbox is the one to read, once an epoch holds the lease there."""
        self._ledger = ledger
        self.ours = False

    def hand_over(self) -> None:
        """Another bridge holds the lease: it delivers now."""
        self.ours = False

    def added(self) -> None:
        """There is more to read."""
        self.news = True
        self._wake()

    def full(self) -> bool:
        """Whether so much waits for the broker that touching has to pause. A claim is never refused for that."""
        full = self.depth >= self._limit
        if full != self._was_full:
            self._was_full = full
            if full:
                self._telemetry.outbox_filled(self._limit)
            else:
                self._telemetry.outbox_relieved()
        return full

    # What delivery calls, by `Outboxes`.

    async def next(self, limit: int, *, asked: bool = False) -> Sequence[Entry]:
        """Up to `limit` entries that are not read yet; none if there are none now.

        Without `asked`, looks only where there is news. Raises NotConnected.
        """
        while self.news or asked:
            self.news = False
            ledger, cursor = self._ledger, self._cursor
            try:
                found = await ledger.entries(cursor, limit) if self.ours else []
                entries = await self._readable(ledger, found)
            except BaseException:
                self.news = True
                raise
            if not found:
                break
            self.news = True  # there may be more
            if self._may_go_on(ledger, cursor):
                self._cursor = found[-1][0]
                if entries:
                    return entries
        return ()

    def _may_go_on(self, ledger: Ledger, cursor: bytes) -> bool:
        """Whether what was read behind `cursor` is what comes next: no epoch has begun, or ended, meanwhile."""
        return self.ours and cursor == self._cursor and ledger is self._ledger

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle`."""
        arguments: list[Argument] = []
        for settlement in settlements:
            arguments += (settlement.id, settlement.expirations, len(settlement.dead))
            for letter in settlement.dead:
                words = fields_of(letter)
                arguments += (len(words), *words)
        self.depth, dead = await self._ledger.settle(arguments)
        self._telemetry.outbox_settled(self.depth, dead)

    async def _readable(self, ledger: Ledger, found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
        """The entries, less those that cannot be read, which are moved to the dead letters in one step."""
        entries: list[Entry] = []
        for entry_id, fields in found:
            try:
                entries.append(read_entry(self._identity, entry_id, fields, self.shard))
            except Unreadable as error:
                words = _kept(entry_id, fields)
                # How many expirations it counts for is not known any more: the depth stays, until nothing waits.
                self.depth, dead = await ledger.settle([entry_id, 0, 1, len(words), *words])
                self._telemetry.entry_unreadable(entry_id.decode(), str(error), dead)
        return entries


def _kept(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[Argument]:
    """What becomes of an entry that cannot be read: the fields and values of its dead letter."""
    words: list[Argument] = [b"outbox entry", entry_id]
    for name, value in islice(fields.items(), FIELDS_KEPT):
        words += (name, value)
    left_out = len(fields) - FIELDS_KEPT
    return [*words, b"fields left out", left_out] if left_out > 0 else words
