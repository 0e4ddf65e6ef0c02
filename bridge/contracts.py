"""Read this first: the two contracts that carry the design.

    Redis ──▶ Source: the outbox of claimed expirations ──▶ delivery ──▶ Sink ──▶ broker

* A *source* finds expirations and claims them into its durable outbox (`bridge/redis`), with a record of each gap in
  which it may have missed some. It promises that whatever is in the outbox stays there until it is settled, and that
  one event has one id, whichever process reads it.
* A *sink* publishes (`bridge/sinks`). It is dumb: no retries, no metrics, no dead letters.
* *Delivery* (`bridge/delivery`) is the only one that knows both. It reads the outbox, encodes each event as a
  CloudEvent, hands batches to the sink, sends again what was not acked, and settles what was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from bridge.expiration import Event

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the outbox: what one atomic script claimed, in stream order. Settled as a whole."""

    id: bytes
    """`<fence>-<sequence number>`, ascending: later claims have greater ids."""
    events: Sequence[Event]
    shard: int = 0
    """Of the ledger. Ids are unique within one."""


class Message(NamedTuple):
    """A CloudEvent, ready to be sent. A tuple, as the expiration that it tells of."""

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
    """Whether it is a gap record, or a test message: of no key, and with a subject of its own."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that the broker will never take."""

    event: Event
    reason: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """An outbox entry that is done with: every one of its messages is acked or, with its reason, a dead letter."""

    entry: Entry
    dead: Sequence[DeadLetter] = ()


class Source(Protocol):
    """The outbox of claimed expirations. Who calls: delivery, one task, for as long as it holds the lease."""

    async def read(self, limit: int) -> Sequence[Entry]:
        """Up to `limit` of the next unsettled entries, ascending; waits while there are none.

        Every entry comes at least once in every epoch (the first read of an epoch begins with what a dead process left
        behind), so the caller skips what it has under way. Nothing is returned only when the source is closing and
        everything was read: there will be no more.

        Raises NotConnected: call again, after a back-off.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Remove the entries from the outbox and, of each shard in the same atomic step, store their dead letters.

        Settling twice is harmless. Raises NotConnected: it may or may not have happened; call again.
        """


class Sink(Protocol):
    """Where expirations go. Who calls: delivery opens it, publishes many batches side by side, and closes it."""

    @property
    def connected(self) -> bool:
        """Whether a publish has a chance now. False before `open()`, after `close()`, and while the broker is gone."""

    async def open(self) -> None:
        """Connect, and create or check the stream or topic. May be called again after any failure or `close()`.

        Raises NotConnected (try again after a back-off) or Refused (somebody must fix it; trying again is harmless).
        """

    async def publish(self, batch: Sequence[Message]) -> None:
        """Return when the broker has durably acked *every* message of the batch; else raise.

        No two messages of the batch have the same key, and no key of it is in a batch that is still under way, so
        a sink need not care for the order of a key's messages beyond that.

        Raises
        ------
        NotConnected: nothing is known about the batch; `open()` again, then send the same batch again.
        Retryable: nothing is known about the batch; send the same batch again after a back-off.
        Rejected: the named messages will never be taken; all others of the batch are acked.
        """

    async def close(self) -> None:
        """Give everything back, within a bounded time. Batches under way end in NotConnected. Never raises."""
