"""The outbox of one shard. `outboxes.py` makes one of all of them, for delivery.

Guarantees: every entry is read at least once in every epoch, oldest first, for as long as this bridge holds the lease;
what is settled is gone for good. An entry that cannot be read (another program wrote or damaged it) holds up nothing:
it becomes a dead letter as it is, or the first fields of a huge one do. When another server becomes the primary,
nothing waits for the former one any longer. Does not remember what was read in another epoch: delivery skips what it
has under way.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from bridge.contracts import Entry, Settlement
from bridge.errors import NotConnected
from bridge.expiration import Identity
from bridge.limits import LedgerLimits
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.ledger.interruptible import Interrupted, Interruptible
from bridge.redis.ledger.letters import fields_of
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Argument
from bridge.telemetry.shard import ShardTelemetry

START = b"0-0"


class Outbox:
    """Claimed expirations of one shard."""

    def __init__(
        self,
        ledger: Ledger,
        identity: Identity,
        limit: int,
        limits: LedgerLimits,
        telemetry: ShardTelemetry,
        wake: Callable[[], None] = lambda: None,
        *,
        shard: int = 0,
    ) -> None:
        """`limit`: expirations waiting at which touching pauses. `wake` is called when there may be more to read."""
        self.shard = shard
        self.depth = 0
        """Expirations waiting, as last heard."""
        self.ours = False
        """Whether an epoch of this bridge holds the lease, or did until its server was lost."""
        self.news = False
        """Whether there may be more to read."""
        self._ledger = ledger
        self._identity = identity
        self._limit = limit
        self._limits = limits
        self._telemetry = telemetry
        self._wake = wake
        self._cursor = START
        self._reported_full = False
        self._calls = Interruptible()

    # What the epoch, and the source that it belongs to, call.

    def open(self) -> None:
        """A new epoch holds the lease: read from the beginning."""
        self._cursor = START
        self.ours = True
        self._reported_full = False  # what was said of it then holds no more
        self.added()

    def pause(self) -> None:
        """No epoch of this bridge holds the lease, for all that is known: nothing is read until the next one does."""
        self.ours = False

    def move(self, ledger: Ledger) -> None:
        """Another server is the primary: its outbox is the one to read, once an epoch holds the lease there."""
        self._ledger = ledger
        self.pause()
        self._calls.interrupt()  # the former one may be frozen, and what it answers counts no longer

    def added(self) -> None:
        """There is more to read."""
        self.news = True
        self._wake()

    @property
    def full(self) -> bool:
        """Whether so much waits for the broker that touching has to pause. A claim is never refused for that."""
        return self.depth >= self._limit

    def holds(self, depth: int) -> None:
        """An epoch has learned how many expirations wait."""
        self.depth = depth
        if self.full and not self._reported_full:
            self._telemetry.outbox_filled(self._limit)
        elif self._reported_full and not self.full:
            self._telemetry.outbox_relieved()
        self._reported_full = self.full

    # What delivery calls, by `Outboxes`.

    async def next(self, limit: int, *, anyway: bool = False) -> Sequence[Entry]:
        """Up to `limit` entries that are not read yet; none if there are none now.

        Looks only where there is news, or `anyway`. Raises NotConnected or Refused.
        """
        while self.news or anyway:
            self.news = False
            ledger, cursor = self._ledger, self._cursor
            try:
                async with self._calls.wait():
                    found = await ledger.entries(cursor, limit) if self.ours else []
                    entries = await self._readable(ledger, found)
            except Interrupted:
                continue
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
        """See `Outbox.settle` of the contracts."""
        arguments: list[Argument] = []
        for settlement in settlements:
            arguments += (settlement.id, settlement.expirations, len(settlement.dead))
            for letter in settlement.dead:
                words = fields_of(letter)
                arguments += (len(words), *words)
        try:
            async with self._calls.wait():
                self.depth, dead = await self._ledger.settle(arguments)
        except Interrupted:
            raise NotConnected("the ledger is on another server now") from None
        self._telemetry.outbox_settled(self.depth, dead)

    async def _readable(self, ledger: Ledger, found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
        """The entries, less those that cannot be read, which are moved to the dead letters in one step."""
        entries: list[Entry] = []
        for entry_id, fields in found:
            try:
                entries.append(read_entry(self._identity, entry_id, fields, self.shard))
            except Unreadable as error:
                words = _kept(entry_id, fields, self._limits.fields_kept)
                # How many expirations it counts for is no longer known: the depth stays, until nothing waits.
                self.depth, dead = await ledger.settle([entry_id, 0, 1, len(words), *words])
                self._telemetry.entry_unreadable(entry_id.decode(), str(error), dead)
        return entries


def _kept(entry_id: bytes, fields: Mapping[bytes, bytes], most: int) -> list[Argument]:
    """What becomes of an entry that cannot be read: the fields and values of its dead letter."""
    words: list[Argument] = [b"outbox entry", entry_id]
    for name, value in islice(fields.items(), most):
        words += (name, value)
    left_out = len(fields) - most
    return [*words, b"fields left out", left_out] if left_out > 0 else words
