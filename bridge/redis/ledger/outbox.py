"""The outbox of one shard. `outboxes.py` makes one of all of them, for delivery.

Guarantees: every entry is read at least once in every epoch, oldest first, while this bridge holds the lease. What is
settled is removed. An entry that cannot be read (another program wrote or damaged it) delays nothing: it becomes a dead
letter as it is; of a huge one, only the first fields do. When another server becomes the primary, nothing waits for the
former one. An entry that a script's reply has carried is not read again, if everything before it was read: when the
reply comes, the same bytes are in the outbox. It does not remember what was read in another epoch: delivery skips what
it has under way.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from bridge.contracts import Entry, Settlement
from bridge.errors import NotConnected, Refused
from bridge.expiration import Identity
from bridge.limits import LedgerLimits
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.ledger.interruptible import Interrupted, Interruptible
from bridge.redis.ledger.letters import fields_of
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Argument, StreamEntry
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
        wanted: Callable[[bytes], object] | None = None,
    ) -> None:
        """`limit`: how many expirations wait when touching pauses. `wake` is called when there may be more to read.

        `wanted`: whether the value of a key is wanted; None if no value is.
        """
        self.shard = shard
        self.depth = 0
        """Expirations waiting, as last heard."""
        self.ours = False
        """Whether an epoch of this bridge holds the lease, or did until its server was lost."""
        self._news = False
        """Whether there may be more in it than was read or carried."""
        self._ledger = ledger
        self._identity = identity
        self._limit = limit
        self._limits = limits
        self._telemetry = telemetry
        self._wake = wake
        self._cursor = START
        self._abreast = False
        """Whether what was read and carried is all that is in it."""
        self._carried = deque[StreamEntry]()
        """Entries that came with replies. They follow what was read. Empty unless abreast."""
        self._carried_bytes = 0
        self._reported_full = False
        self._wanted = wanted
        self._value_bytes = 0 if wanted is None else limits.reply_bytes
        """About how many bytes of values are in Redis; at first a cautious guess."""
        self._calls = Interruptible()

    # What the epoch, and the source that it belongs to, call.

    def open(self) -> None:
        """A new epoch holds the lease: read from the beginning."""
        self._cursor = START
        self.ours = True
        self._reported_full = False  # what was reported then no longer holds
        self.added()

    def pause(self) -> None:
        """As far as is known, no epoch of this bridge holds the lease: nothing is read until the next one does."""
        self.ours = False
        self._fall_behind()

    def move(self, ledger: Ledger) -> None:
        """Another server is the primary: its outbox is the one to read, once an epoch holds the lease there."""
        self._ledger = ledger
        self.pause()
        self._calls.interrupt()  # the former one may be frozen, and its answers no longer count

    @property
    def room(self) -> int:
        """How many bytes an entry may have that is handed to `added`, which saves reading it; 0 if none can be."""
        return max(self._limits.reply_bytes - self._carried_bytes, 0) if self._abreast else 0

    def added(self, entry: StreamEntry | None = None) -> None:
        """There is more to read. `entry`: the entry that a script has just written, from its reply."""
        if entry is None or not self._abreast:
            self._fall_behind()
        elif _place(entry[0]) > _place(self._cursor):  # else it was just read, before its script's reply came
            self._carried.append(entry)
            self._carried_bytes += _size(entry)
        self._wake()

    def _fall_behind(self) -> None:
        """It has to be read from the cursor on, where the carried entries are found again."""
        self._news, self._abreast = True, False
        self._carried.clear()
        self._carried_bytes = 0

    @property
    def news(self) -> bool:
        """Whether there may be more to read."""
        return self._news or bool(self._carried)

    @property
    def full(self) -> bool:
        """Whether too much waits for the broker, so that touching has to pause. A claim is never refused for that."""
        return self.depth >= self._limit

    def holds(self, depth: int) -> None:
        """An epoch has learned how many expirations wait."""
        self.depth = depth
        if self.full and not self._reported_full:
            self._telemetry.outbox_filled(self._limit)
        elif self._reported_full and not self.full:
            self._telemetry.outbox_relieved()
        self._reported_full = self.full

    def holds_values(self, size: int) -> None:
        """An epoch has learned how many bytes of values there are."""
        self._value_bytes = size

    # What delivery calls, by `Outboxes`.

    async def next(self, limit: int, *, anyway: bool = False) -> Sequence[Entry]:
        """Up to `limit` entries that are not read yet; none if there are none now.

        Looks only if there is news, or `anyway`. Raises NotConnected or Refused.
        """
        while self.news or anyway:
            ledger, cursor = self._ledger, self._cursor
            try:
                found, more = await self._found(ledger, limit)
                entries = await self._readable(ledger, found)
            except Interrupted:
                continue
            except (NotConnected, Refused):
                self._fall_behind()
                if self.ours and ledger is self._ledger:
                    raise
                continue  # the outbox has changed hands: this answer no longer counts
            except BaseException:
                self._fall_behind()
                raise
            going_on = self._may_go_on(ledger, cursor)
            if going_on:
                self._read(found, more=more)
            elif found:
                self._fall_behind()
            if going_on and entries:
                return entries
            anyway = False  # what has come meanwhile is news
        return ()

    async def again(self, entry_id: bytes) -> Entry | None:
        """See `Outbox.again` of the contracts."""
        ledger = self._ledger
        if not self.ours:
            raise NotConnected("no epoch of this bridge holds the lease")
        try:
            async with self._calls.wait():
                found = await ledger.entry(entry_id)
            entries = await self._readable(ledger, found)
        except Interrupted:
            raise NotConnected("the ledger is on another server now") from None
        return entries[0] if entries else None

    async def _found(self, ledger: Ledger, limit: int) -> tuple[Sequence[StreamEntry], bool]:
        """What comes next, and whether there may be more behind it."""
        if self._carried:
            return list(islice(self._carried, limit)), False
        self._news = False
        if self._value_bytes >= self._limits.reply_bytes:
            limit = min(limit, self._limits.large_entries)
        if not self.ours:
            return (), False
        async with self._calls.wait():
            return await ledger.entries(self._cursor, limit)

    def _read(self, found: Sequence[StreamEntry], *, more: bool) -> None:
        """This was read, and is the next after what was read before."""
        if found:
            self._cursor = found[-1][0]
        self._news = self._news or more
        self._abreast = not self._news
        while self._carried and _place(self._carried[0][0]) <= _place(self._cursor):
            self._carried_bytes -= _size(self._carried.popleft())

    def _may_go_on(self, ledger: Ledger, cursor: bytes) -> bool:
        """Whether what was read after `cursor` comes next: no epoch has begun or ended meanwhile."""
        return self.ours and cursor == self._cursor and ledger is self._ledger

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle` of the contracts."""
        arguments: list[Argument] = []
        for settlement in settlements:
            arguments += (settlement.id, settlement.expirations, settlement.value_bytes, len(settlement.dead))
            for letter in settlement.dead:
                words = fields_of(letter)
                arguments += (len(words), *words)
        try:
            async with self._calls.wait():
                settled = await self._ledger.settle(arguments)
        except Interrupted:
            raise NotConnected("the ledger is on another server now") from None
        self.depth = settled.depth
        if settled.value_bytes is not None:
            self._value_bytes = settled.value_bytes
        self._telemetry.outbox_settled(*settled)

    async def _readable(self, ledger: Ledger, found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
        """The readable entries. The others are moved to the dead letters in one step."""
        entries: list[Entry] = []
        for entry_id, fields in found:
            try:
                entries.append(read_entry(self._identity, entry_id, fields, self.shard, self._wanted))
            except Unreadable as error:
                words = _kept(entry_id, fields, self._limits.fields_kept)
                # How many expirations it held is no longer known: the depth stays, until nothing waits.
                async with self._calls.wait():
                    settled = await ledger.settle([entry_id, 0, 0, 1, len(words), *words])
                self.depth = settled.depth
                self._telemetry.entry_unreadable(entry_id.decode(), str(error), settled.dead)
        return entries


def _place(entry_id: bytes) -> tuple[int, int]:
    """In the order of the stream."""
    fence, _, number = entry_id.partition(b"-")
    return int(fence), int(number)


def _size(entry: StreamEntry) -> int:
    return sum([len(name) + len(value) for name, value in entry[1].items()])


def _kept(entry_id: bytes, fields: Mapping[bytes, bytes], most: int) -> list[Argument]:
    """The fields and values of the dead letter of an unreadable entry."""
    words: list[Argument] = [b"outbox entry", entry_id]
    for name, value in islice(fields.items(), most):
        words += (name, value)
    left_out = len(fields) - most
    return [*words, b"fields left out", left_out] if left_out > 0 else words
