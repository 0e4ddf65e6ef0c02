"""Delivery: from the outbox to the sink, and what is acked out of the outbox.

Guarantees: an entry is settled only when each of its messages is acked by the broker or stored as a dead letter. What
was not acked is sent again, under the same id, without end. No two messages of one key are under way at once, so a
key's messages reach the broker in their order. Memory is bounded (by twice `in_flight` and one read), however long the
outbox is, also while nothing can be settled; a slow or dead broker holds up nothing but delivery itself.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from bridge.backoff import Backoff
from bridge.cloudevents import Encoder
from bridge.contracts import Batch, DeadLetter, Entry, Message, Outbox, Settlement, Sink
from bridge.delivery.context import Context
from bridge.delivery.link import Link
from bridge.errors import NotConnected, Refused
from bridge.expiration import Event, Expiration
from bridge.tasks import end, run_together


@dataclass(slots=True)
class _Progress:
    """An outbox entry under way."""

    entry: Entry
    open: int
    """Messages not acked yet."""
    size: int = 0
    """Bytes of the bodies."""
    dead: list[DeadLetter] = field(default_factory=list)

    def settlement(self) -> Settlement:
        """When it is done with."""
        return Settlement.of(self.entry, self.dead)


@dataclass(slots=True)
class _Batch:
    """Messages that are published together. No two of them have the same key."""

    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """What each message tells of."""
    entries: list[_Progress] = field(default_factory=list)
    """Where each comes from."""
    keys: set[bytes] = field(default_factory=set)
    size: int = 0
    """Bytes of the bodies."""


class _Receipts:
    """See `Receipts`: what a session says of one attempt."""

    def __init__(self) -> None:
        self.acks: set[int] = set()
        self.refusals: dict[int, str] = {}
        self.rejections: dict[int, str] = {}

    def acked(self, indices: Collection[int]) -> None:
        """See `Receipts`."""
        self.acks.update(indices)

    def refused(self, reasons: Mapping[int, str]) -> None:
        """See `Receipts`."""
        self.refusals |= reasons

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """See `Receipts`."""
        self.rejections |= reasons


class Delivery:
    """See the module."""

    def __init__(self, outbox: Outbox, sink: Sink, encoder: Encoder, context: Context) -> None:
        self._outbox = outbox
        self._encoder = encoder
        self._context = context
        self._limits = context.limits
        self._redis_ms = context.redis_ms
        self._clock = context.clock
        self._telemetry = context.telemetry
        self._under_way: dict[tuple[int, bytes], _Progress] = {}
        """By shard and id of the entry."""
        self._keys: set[bytes] = set()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._room = asyncio.Event()
        self._done: list[_Progress] = []
        """Acked, and not settled yet."""
        self._unsettled = 0
        self._unsettled_bytes = 0
        self._settle = asyncio.Event()
        self._link = Link(sink, context)
        self._failures = asyncio.Queue[BaseException]()
        self._publishers: set[asyncio.Task[None]] = set()
        self._read_all = False
        self._telemetry.outbox_watched(self._oldest_age)

    async def run(self) -> None:
        """Deliver until the source has nothing more to come and all of it is settled.

        Raises Refused where the sink never opened, or says while publishing that it cannot go on.
        """
        try:
            work = {
                "link": self._link.keep(),
                "publish-failure": self._failed(),
                "publish": self._publish(),
                "settle": self._settle_acked(),
            }
            await run_together(work, until="settle")
        finally:
            await end(list(self._publishers))

    async def close(self) -> None:
        """End the session with the broker, within a bounded time. After `run`."""
        await self._link.close()

    # Outbox → sink.

    async def _publish(self) -> None:
        while entries := await self._read():
            for batch in self._batches(entries):
                await self._admit(batch)
                task = asyncio.create_task(self._deliver(batch), name="deliver-batch")
                self._publishers.add(task)
                task.add_done_callback(self._delivered)
        self._read_all = True
        self._settle.set()

    async def _read(self) -> Sequence[Entry]:
        backoff = Backoff()
        while True:
            try:
                return await self._outbox.read(self._limits.read_entries)
            except (NotConnected, Refused) as error:
                await self._wait(backoff, str(error))

    def _batches(self, entries: Sequence[Entry]) -> Iterator[_Batch]:
        """Cut what is not under way into batches in which no key comes twice."""
        batch, limits = _Batch(), self._limits
        encode = self._encoder.encode
        for entry in entries:
            place = entry.shard, entry.id
            if place in self._under_way:
                continue
            progress = _Progress(entry, len(entry.events))
            self._under_way[place] = progress
            for event in entry.events:
                message = encode(event)
                key, size = message.key, len(message.body)
                count = len(batch.messages)
                if count and (key in batch.keys or count >= limits.batch or batch.size + size > limits.batch_bytes):
                    yield batch
                    batch = _Batch()
                batch.messages.append(message)
                batch.events.append(event)
                batch.entries.append(progress)
                batch.keys.add(key)
                batch.size += size
                progress.size += size
        if batch.messages:
            yield batch

    async def _admit(self, batch: _Batch) -> None:
        """Wait until there is room for the batch, and no message of its keys is under way."""
        while self._crowded(batch):
            self._room.clear()
            await self._room.wait()
        self._keys |= batch.keys
        self._in_flight += len(batch.messages)
        self._in_flight_bytes += batch.size
        self._telemetry.messages_in_flight(self._in_flight)

    def _crowded(self, batch: _Batch) -> bool:
        limits = self._limits
        if self._unsettled > limits.in_flight or self._unsettled_bytes > limits.in_flight_bytes:
            return True
        return self._in_flight > 0 and (
            self._in_flight + len(batch.messages) > limits.in_flight
            or self._in_flight_bytes + batch.size > limits.in_flight_bytes
            or not self._keys.isdisjoint(batch.keys)
        )

    async def _deliver(self, batch: _Batch) -> None:
        """Publish until every message is acked or rejected."""
        backoff = Backoff()
        left, dead = list(range(len(batch.messages))), dict[int, str]()
        while left:
            receipts, session = _Receipts(), await self._link.session()
            reason = ""
            try:
                await session.publish(Batch([batch.messages[index] for index in left]), receipts)
            except NotConnected as error:
                self._link.lost(session)
                reason = str(error)
            if receipts.acks:
                self._link.proven()
            dead |= {left[number]: why for number, why in receipts.rejections.items()}
            done = receipts.acks | receipts.rejections.keys()
            left = [index for number, index in enumerate(left) if number not in done]
            if left:
                reason = next(iter(receipts.refusals.values()), reason)
                await self._again(len(left), backoff, reason)
        self._acked(batch, dead)

    async def _again(self, count: int, backoff: Backoff, reason: str) -> None:
        delay = backoff.next()
        self._telemetry.messages_retried(count, reason, delay)
        await self._clock.sleep(delay)

    def _acked(self, batch: _Batch, reasons: dict[int, str]) -> None:
        """The broker has all of the batch, but those with a reason."""
        count = len(batch.messages)
        for index, reason in reasons.items():
            batch.entries[index].dead.append(DeadLetter(batch.events[index], reason))
        for progress in batch.entries:
            progress.open -= 1
            if not progress.open:
                self._done.append(progress)
                self._unsettled += len(progress.entry.events)
                self._unsettled_bytes += progress.size
        self._keys -= batch.keys
        self._in_flight -= count
        self._in_flight_bytes -= batch.size
        self._room.set()
        self._settle.set()
        self._telemetry.messages_in_flight(self._in_flight)
        self._telemetry.messages_published(count - len(reasons), self._lags(batch, reasons))
        if reasons:
            self._telemetry.messages_rejected(list(reasons.values()))

    def _lags(self, batch: _Batch, reasons: Mapping[int, str]) -> list[float]:
        """Seconds from the deadlines of what was acked just now."""
        now = self._redis_ms()
        return [
            max(now - event.deadline_ms, 0) / 1000
            for index, event in enumerate(batch.events)
            if isinstance(event, Expiration) and event.deadline_ms is not None and index not in reasons
        ]

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._publishers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.put_nowait(error)

    async def _failed(self) -> NoReturn:
        raise await self._failures.get()

    # Acked → out of the outbox.

    async def _settle_acked(self) -> None:
        backoff = Backoff()
        while not (self._read_all and not self._under_way):
            await self._settle.wait()
            self._settle.clear()
            while chunk := self._done[: self._limits.settle_entries]:
                try:
                    await self._outbox.settle([done.settlement() for done in chunk])
                except (NotConnected, Refused) as error:
                    await self._wait(backoff, str(error))
                    continue
                backoff.reset()
                del self._done[: len(chunk)]
                for done in chunk:
                    del self._under_way[done.entry.shard, done.entry.id]
                    self._unsettled -= len(done.entry.events)
                    self._unsettled_bytes -= done.size
                self._room.set()

    async def _wait(self, backoff: Backoff, reason: str) -> None:
        delay = backoff.next()
        self._telemetry.outbox_unreached(reason, delay)
        await self._clock.sleep(delay)

    def _oldest_age(self) -> float:
        """Seconds since the oldest entry under way was claimed; 0 if none is. What is not read yet is younger."""
        oldest = next(iter(self._under_way.values()), None)
        if oldest is None:
            return 0.0
        event = oldest.entry.events[0]
        claimed_ms = event.observed_ms if isinstance(event, Expiration) else event.closed_ms
        return max(self._redis_ms() - claimed_ms, 0) / 1000
