"""Delivery: from the outbox to the sink, and what is acked out of the outbox.

Guarantees: an entry is settled only when each of its messages is acked by the broker or stored as a dead letter. What
was not acked is sent again, under the same id. A key's messages reach the broker in their order: while one is on its
way, or stuck, the next ones of that key wait. Memory is bounded (by what is in flight, stuck, acked and not settled,
each, and one read), however long the outbox is; a slow or dead broker holds up nothing but delivery itself, and what is
stuck (`stuck.py`) nothing but its own keys, until there is no room for more of it.
"""

import asyncio
from collections.abc import Iterator, Sequence

from bridge.backoff import Backoff
from bridge.cloudevents import Encoder
from bridge.contracts import Entry, Order, Outbox, Sink
from bridge.delivery.context import Context
from bridge.delivery.parcels import Load, Parcel, Progress
from bridge.delivery.publisher import Publisher
from bridge.errors import NotConnected, Refused
from bridge.tasks import end, run_together


class Delivery:
    """See the module."""

    def __init__(self, outbox: Outbox, sink: Sink, encoder: Encoder, context: Context) -> None:
        self._outbox = outbox
        self._encoder = encoder
        self._context = context
        self._limits = context.limits
        self._clock = context.clock
        self._telemetry = context.telemetry
        self._by_shard = sink.order is Order.SHARD
        self._publisher = Publisher(sink, context, self._on_done)
        self._under_way: dict[tuple[int, bytes], Progress] = {}
        """By shard and id of the entry."""
        self._done: list[Progress] = []
        """To be settled."""
        self._unsettled = 0
        """Messages of those."""
        self._unsettled_bytes = 0
        self._settle = asyncio.Event()
        self._read_all = False
        self._telemetry.outbox_watched(self._oldest_age)

    async def run(self) -> None:
        """Deliver until the outbox has ended and all of it is settled.

        Raises Refused where the first connection is refused, or the sink can never serve again.
        """
        publisher = self._publisher
        work = {
            "link": publisher.link.keep(),
            "publish-failure": publisher.failed(),
            "publish": self._publish(),
            "retry-stuck": publisher.retry(),
            "watch-stuck": publisher.watch(),
            "settle": self._settle_done(),
        }
        try:
            await run_together(work, until="settle")
        finally:
            await end(publisher.tasks)

    async def close(self) -> None:
        """End the session with the broker, within a bounded time. After `run`."""
        await self._publisher.link.close()

    # Outbox → sink.

    async def _publish(self) -> None:
        while entries := await self._read():
            for load in self._loads(entries):
                await self._room()
                await self._publisher.fly(load)
        self._read_all = True
        self._settle.set()

    async def _read(self) -> Sequence[Entry]:
        backoff = Backoff()
        while True:
            try:
                return await self._outbox.read(self._limits.read_entries)
            except (NotConnected, Refused) as error:
                await self._wait(backoff, str(error))

    async def _room(self) -> None:
        """Return when there is room for more messages that may get stuck, or cannot be settled now."""
        limits, publisher = self._limits, self._publisher
        while publisher.full or self._unsettled > limits.in_flight or self._unsettled_bytes > limits.in_flight_bytes:
            publisher.room.clear()
            await publisher.room.wait()

    def _loads(self, entries: Sequence[Entry]) -> Iterator[Load]:
        """Cut what is not under way into loads; what may not overtake others waits behind them."""
        load, limits, order, encode = Load(), self._limits, self._publisher.order, self._encoder.encode
        for entry in entries:
            if (entry.shard, entry.id) in self._under_way or not entry.events:
                continue
            progress = Progress(entry)
            self._under_way[progress.place] = progress
            messages = [encode(event) for event in entry.events]
            keys = {message.key for message in messages}
            progress.size = sum([len(message.body) for message in messages])
            if load.messages and self._apart(load, progress):
                yield load
                load = Load()
            if self._by_shard or (
                len(keys) == len(messages) <= limits.batch
                and progress.size <= limits.batch_bytes
                and keys.isdisjoint(load.keys)
                and keys.isdisjoint(order.busy)
            ):
                load.extend(progress, messages, entry.events, keys)
            else:
                for index, (message, event) in enumerate(zip(messages, entry.events, strict=True)):
                    parcel = Parcel(message, event, progress, index)
                    if load.messages and (
                        message.key in load.keys
                        or len(load.messages) >= limits.batch
                        or load.size + len(message.body) > limits.batch_bytes
                    ):
                        yield load
                        load = Load()
                    if message.key in order.busy:
                        order.wait(parcel)
                    else:
                        load.add(parcel)
        if load.messages:
            yield load

    def _apart(self, load: Load, progress: Progress) -> bool:
        """Whether an entry is not to be in one load with those before it."""
        shard = load.stretches[0].progress.settlement.shard
        return (
            len(load.messages) + progress.messages > self._limits.batch
            or load.size + progress.size > self._limits.batch_bytes
            or (self._by_shard and shard != progress.settlement.shard)
        )

    # Acked → out of the outbox.

    def _on_done(self, progress: Progress) -> None:
        self._done.append(progress)
        self._unsettled += progress.messages
        self._unsettled_bytes += progress.size
        self._settle.set()

    async def _settle_done(self) -> None:
        backoff = Backoff()
        while not (self._read_all and not self._under_way):
            await self._settle.wait()
            self._settle.clear()
            while chunk := self._done[: self._limits.settle_entries]:
                try:
                    await self._outbox.settle([done.settlement for done in chunk])
                except (NotConnected, Refused) as error:
                    await self._wait(backoff, str(error))
                    continue
                backoff.reset()
                del self._done[: len(chunk)]
                for done in chunk:
                    del self._under_way[done.place]
                    self._unsettled -= done.messages
                    self._unsettled_bytes -= done.size
                self._publisher.room.set()

    async def _wait(self, backoff: Backoff, reason: str) -> None:
        delay = backoff.next()
        self._telemetry.outbox_unreached(reason, delay)
        await self._clock.sleep(delay)

    def _oldest_age(self) -> float:
        """Seconds since the oldest entry under way was claimed; 0 if none is. What is not read yet is younger."""
        oldest = next(iter(self._under_way.values()), None)
        return 0.0 if oldest is None else max(self._context.redis_ms() - oldest.claimed_ms, 0) / 1000
