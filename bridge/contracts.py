"""Read this first: the contracts that carry the design, and who calls what when.

    Redis ──▶ Source ──▶ Outbox ──▶ delivery ──▶ Session of a Sink ──▶ broker

* A *source* finds expirations and claims them into its durable *outbox* (`bridge/redis`), with a record of each gap in
  which it may have missed some. Whatever is in the outbox stays there until it is settled, and one event has one id,
  whichever process reads it.
* A *sink* makes *sessions* (`bridge/sinks`), and a session publishes: it says for each message what the broker did with
  it. It is dumb: it neither decides when to try again nor counts, and it knows no dead letters.
* *Delivery* (`bridge/delivery`) is the only part that knows both. It reads the outbox, encodes each event as a
  CloudEvent, publishes, remembers what is acked, sends again what is not, and settles the entries that are done.

The errors are named by what the caller does next: see `bridge/errors.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple, Protocol

from bridge.expiration import Event, expires

_NONE: Mapping[str, str] = MappingProxyType({})
_ALONE = b"alone:"


# Source → delivery.


class Origin(NamedTuple):
    """Where an entry was claimed: it stays when another ledger adopts the entry."""

    line: bytes
    """Entries of one line come in the order of their numbers, for every reader; no two lines have the same name."""
    number: int

    @classmethod
    def of(cls, shard: int, entry_id: bytes) -> "Origin":
        """The origin of an entry that was claimed where it is now. A line is what one epoch of a shard has claimed."""
        fence, _, number = entry_id.partition(b"-")
        return cls(b"%d:%b" % (shard, fence), int(number))

    @classmethod
    def alone(cls, event_id: str) -> "Origin":
        """The origin of an event that is sent alone, in no order with others."""
        return cls(_ALONE + event_id.encode(), 0)

    @property
    def shard(self) -> int:
        """The ledger where it was claimed, unless it `is_alone`."""
        return int(self.line.partition(b":")[0])

    @property
    def is_alone(self) -> bool:
        """Whether it is one of those."""
        return self.line.startswith(_ALONE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the outbox: what one atomic script claimed, in stream order. Settled as a whole."""

    id: bytes
    """`<fence>-<sequence number>`, ascending: later claims have greater ids."""
    events: Sequence[Event]
    shard: int = 0
    """Of the ledger. Ids are unique within one."""
    origin: Origin | None = None
    """Set if it differs from what shard and id say."""
    value_bytes: int = 0
    """Size of the values of its keys, as they are stored."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that the broker will never take."""

    event: Event
    reason: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """An outbox entry that is done with: every one of its messages is acked or, with its reason, a dead letter."""

    shard: int
    id: bytes
    expirations: int
    """How many of its events are expirations, which the outbox counts; the others are gap records."""
    dead: Sequence[DeadLetter] = ()
    value_bytes: int = 0
    """See `Entry`."""

    @classmethod
    def of(cls, entry: Entry, dead: Sequence[DeadLetter] = ()) -> "Settlement":
        """The settlement of an entry."""
        expirations = sum(expires(event) for event in entry.events)
        return cls(entry.shard, entry.id, expirations, dead, entry.value_bytes)


class Outbox(Protocol):
    """Claimed expirations. Delivery alone calls it: one task reads, another one settles."""

    async def read(self, limit: int) -> Sequence[Entry]:
        """Up to `limit` of the next unsettled entries, ascending within a shard; waits while there are none.

        Every entry comes at least once in every epoch (the first read of an epoch begins with what a dead process left
        behind), so the caller skips what it has under way. Nothing is returned only when the source has ended and
        everything was read: there will be no more.

        Raises NotConnected or Refused: call again, after a back-off.
        """

    async def again(self, shard: int, entry_id: bytes) -> Entry | None:
        """One entry that was read before and is not settled. None if it is not here.

        Whoever settled it has published it; or its shard is another bridge's now, with which it may come back.

        Raises NotConnected or Refused: call again, after a while.
        """

    def holds(self, shard: int) -> bool:
        """Whether this bridge reads that shard now. When it gets the shard back, it reads all of it anew."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Remove the entries from the outbox and, of each shard in the same atomic step, store their dead letters.

        Settling twice is harmless. Raises NotConnected or Refused: it may or may not have happened; call again.
        """


class Source(Protocol):
    """Where expirations come from. The service makes it, runs it once, and closes it."""

    @property
    def db(self) -> int:
        """The number of the Redis database."""

    @property
    def outbox(self) -> Outbox:
        """What it has claimed; the same object for its whole life."""

    @property
    def waiting(self) -> int:
        """Expirations in the outbox, as last heard."""

    def redis_ms(self) -> float:
        """Redis's clock now, Unix milliseconds, according to the last reply."""

    async def run(self) -> None:
        """Find expirations until `stop`; then the outbox ends: `read` returns nothing once all is read.

        Raises Refused if it was never served: the settings must be fixed.
        """

    def stop(self) -> None:
        """Handle what was received, and let `run` return. May be called at any time, also twice."""

    async def close(self) -> None:
        """Release the lease, so that a standby takes over at once, and close the connections. After `run`, once."""


# Delivery → sink.


class Message(NamedTuple):
    """A CloudEvent, ready to be sent. A tuple, like the expiration that it is made of."""

    id: str
    """The CloudEvents id; the same for every copy of one occurrence."""
    key: bytes
    """The Redis key that expired, or what stands for it in a gap record."""
    body: bytes
    content_type: str
    """Of `body`: the CloudEvents JSON format in structured mode, the data's own type in binary mode."""
    attributes: Mapping[str, str] = _NONE
    """Binary mode only: the CloudEvents attributes, unprefixed. The sink prefixes them as its protocol binding says."""
    gap: bool = False
    """Whether it is a gap record, or a test message. Such a message has no key, and a subject of its own."""
    field_lane: bytes = b""
    """If a field expired: identifies hash and field. Messages of one hash's fields are in no order."""


class Run(NamedTuple):
    """Messages of one outbox entry that stand side by side in a batch."""

    shard: int
    entry: bytes
    """The entry's id."""
    first: int
    """The index, among the entry's events, of what the first of them reports."""
    length: int
    origin: Origin | None = None
    """See `Entry.origin`."""
    claimed_ms: int = 0
    """When the entry was claimed, Unix milliseconds on Redis's clock."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are published together."""

    messages: Sequence[Message]
    runs: Sequence[Run] = ()
    """Where they come from, in the order of the messages, for a sink that remembers places in the outbox."""


class Order(Enum):
    """What a sink needs to be in order. Delivery ensures it."""

    KEY = auto()
    """The messages of one key, or of one field of it. Batches of other keys are published in parallel."""
    SHARD = auto()
    """All messages of one shard of the ledger, as they stand in the outbox: its batches are published one by one."""


class Receipts(Protocol):
    """What became of the messages of one batch. A session calls these: for each message one of them, once.

    Messages are named by their index in the batch. The order does not matter, and many may come in one call: the usual
    batch is acked whole, by one call with `range(len(batch.messages))`. None of them blocks or raises.
    """

    def acked(self, indices: Collection[int]) -> None:
        """The broker has stored these durably. They are never sent again."""

    def refused(self, reasons: Mapping[int, str], *, alone: bool = False) -> None:
        """The broker did not take these now, for these reasons, and has not stored them. They are sent again later.

        `alone`: the reasons concern only the stream or topic of these messages, of several: the broker takes others.
        """

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """The broker will never take these. They become dead letters, with these reasons."""


class Session(Protocol):
    """One connection to the broker, from `Sink.connect` to the reason why it ended. Never repaired, only replaced.

    Delivery publishes many batches side by side, waits in `ended`, and closes it when that returns, or at the end.
    """

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """Send the batch; return when each message has its receipt.

        A message that the broker leaves unanswered has no receipt while the session lasts: a late ack counts. Sending
        it again meanwhile, under the same id, is the session's business.

        With `Order.KEY` no two messages of a batch have the same key, and no key of it is in another batch that is
        under way, but for those of different fields: a session need not care for order. With `Order.SHARD` a batch is
        of one shard and in the outbox's order, and comes only when all of that shard's former batch is acked or
        rejected.

        Cancelling it gives the batch up: no receipts come after that.

        Raises NotConnected if the session has ended. Nothing is known about the messages without a receipt: send them
        again on the next session. Raises Refused if the sink can never serve again, and the process must end.
        """

    async def ended(self) -> str:
        """Return when nothing can be published any longer: why, in words. Returns at once from then on."""

    async def close(self) -> None:
        """Give everything back, within a bounded time. Batches under way end in NotConnected.

        Never raises. May be called again, and after the end of the session.
        """


class Sink(Protocol):
    """Where expirations go. Delivery connects it, and again whenever a session has ended; one session at a time."""

    @property
    def order(self) -> Order:
        """What has to be in order."""

    async def connect(self) -> Session:
        """Connect, and create or check the stream or topic. It can be cancelled.

        Raises NotConnected (call again after a back-off) or Refused (an operator must act; calling again is harmless).
        Then there is nothing to close.
        """

    def channel(self, message: Message) -> str:
        """Where the broker keeps such messages, in words that a log may hold: without any part of a key."""
