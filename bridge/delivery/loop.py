"""Delivery: from the outbox to the sink, and what is acked out of the outbox.

Guarantees: an entry is settled only when each of its messages is acked by the broker or stored as a dead letter. What
was not acked is sent again, under the same id. A key's messages reach the broker in their order: while one is on its
way, or stuck, the next ones of that key wait. Memory is bounded, for any length of the outbox: what is in flight, what
is stuck, what is set aside, what is acked and not settled, and one read each have a limit. A slow or dead broker delays
only delivery. A stuck message (`stuck.py`) delays only its own key, until there is no room even for what is set aside
(`aside.py`).
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import NoReturn

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
        """There is something to settle, and nothing more to wait for."""
        self._settled_at = -math.inf
        """When something was last settled, in monotonic seconds."""
        self._gathering: asyncio.TimerHandle | None = None
        """When what waits for further acks is settled without any; None if nothing waits."""
        self._read_all = False
        self._telemetry.outbox_watched(self._oldest_age)

    async def run(self) -> None:
        """Deliver until the outbox has ended and all of it is settled.

        Raises Refused if the first connection is refused, or if the sink can never serve again.
        """
        publisher = self._publisher
        work = {
            "link": publisher.link.keep(),
            "publish-failure": publisher.failed(),
            "publish": self._publish(),
            "retry-stuck": publisher.retry(),
            "watch-stuck": publisher.watch(),
            "take-up": self._take_up(),
            "settle": self._settle_done(),
        }
        try:
            await run_together(work, until="settle")
        finally:
            self._gather_no_more()
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
            await self._room()  # if all of it waits behind stuck messages, no load has asked
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
        """Return when there is room for more messages: they may get stuck, or may have to wait to be settled."""
        limits, publisher = self._limits, self._publisher
        while publisher.full or self._unsettled > limits.in_flight or self._unsettled_bytes > limits.in_flight_bytes:
            publisher.room.clear()
            await publisher.room.wait()

    def _loads(self, entries: Sequence[Entry]) -> Iterator[Load]:
        """Cut what is not under way into loads. Messages that must not overtake others wait behind them."""
        held = self._publisher.held
        load, limits, order, encode = Load(), self._limits, held.order, self._encoder.encode
        for entry in entries:
            if (entry.shard, entry.id) in self._under_way or not entry.events:
                continue
            progress = Progress(entry)
            self._under_way[progress.place] = progress
            messages = [encode(event) for event in entry.events]
            keys = {message.field_lane or message.key for message in messages}
            progress.size = sum([len(message.body) for message in messages])
            if load.messages and self._apart(load, progress):
                yield load
                load = Load()
            if self._by_shard or (
                len(keys) == len(messages) <= limits.batch
                and progress.size <= limits.batch_bytes
                and keys.isdisjoint(load.keys)
                and keys.isdisjoint(order.busy)
                and (not len(held.aside) or held.aside.holds_none_of(keys))
            ):
                load.extend(progress, messages, entry.events, keys)
            else:
                for index, (message, event) in enumerate(zip(messages, entry.events, strict=True)):
                    parcel = Parcel(message, event, progress, index)
                    if load.messages and (
                        parcel.lane in load.keys
                        or len(load.messages) >= limits.batch
                        or load.size + len(message.body) > limits.batch_bytes
                    ):
                        yield load
                        load = Load()
                    if held.may_go(parcel):
                        load.add(parcel)
        if load.messages:
            yield load

    async def _take_up(self) -> NoReturn:
        """Read again what was set aside, once there is room for it."""
        publisher, held = self._publisher, self._publisher.held
        while True:
            await self._clock.sleep(self._limits.watch)
            self._let_go()
            if not held.roomy:
                continue
            unread = set[int]()
            while (progress := held.aside.first(unread)) is not None and not publisher.occupied:
                try:
                    entry = await self._outbox.again(*progress.place)
                except (NotConnected, Refused):  # whoever reads the outbox says so
                    unread.add(progress.place[0])
                    continue
                for load in self._taken_up(progress, entry):
                    await publisher.fly(load)

    def _let_go(self) -> None:
        """Forget some of what was set aside of shards that other bridges have now: they read it themselves."""
        held = self._publisher.held
        ours = {shard for shard in held.aside.shards if self._outbox.holds(shard)}
        for _ in range(self._limits.give_up):
            progress = held.aside.first(ours)
            if progress is None:
                break
            held.take_up(progress)
            self._forget(progress)

    def _taken_up(self, progress: Progress, entry: Entry | None) -> list[Load]:
        """The messages of the entry that were set aside, in loads. From now on their keys are busy."""
        held, order, limits = self._publisher.held, self._publisher.order, self._limits
        if not held.aside.is_first(progress):
            return []  # an earlier one was set aside meanwhile
        positions = held.take_up(progress)
        if entry is None:
            self._forget(progress)
            return []
        loads = [Load()]
        for position in positions:
            event = entry.events[position]
            parcel = Parcel(self._encoder.encode(event), event, progress, position)
            if parcel.lane in order.busy:
                order.wait(parcel)
                continue
            if len(loads[-1].messages) >= limits.batch or loads[-1].size >= limits.batch_bytes:
                loads.append(Load())
            order.busy.add(parcel.lane)
            loads[-1].add(parcel)
        return [load for load in loads if load.messages]

    def _forget(self, progress: Progress) -> None:
        """The entry cannot be read again: it is gone, or its shard is another bridge's.

        Some of its messages were not acked, so it is never settled. If it comes back, it is read like a new one.
        """
        if self._under_way.get(progress.place) is progress:
            del self._under_way[progress.place]
        self._publisher.room.set()
        self._settle.set()  # it may have been the last one

    def _apart(self, load: Load, progress: Progress) -> bool:
        """Whether an entry must not be in one load with those before it."""
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
        apart = self._clock.monotonic() - self._settled_at >= self._limits.settle_gather
        if apart or self._read_all or self._unsettled > self._limits.in_flight:
            self._settle.set()
        elif self._gathering is None:  # with what else is acked meanwhile: fewer scripts
            self._gathering = self._clock.later(self._limits.settle_gather, self._settle.set)

    async def _settle_done(self) -> None:
        backoff = Backoff()
        while not (self._read_all and not self._under_way):
            await self._settle.wait()
            self._settle.clear()
            self._settled_at = self._clock.monotonic()
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
            self._gather_no_more()

    def _gather_no_more(self) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.cancel()

    async def _wait(self, backoff: Backoff, reason: str) -> None:
        delay = backoff.next()
        self._telemetry.outbox_unreached(reason, delay)
        await self._clock.sleep(delay)

    def _oldest_age(self) -> float:
        """Seconds since the oldest entry under way was claimed; 0 if there is none. Unread entries are younger."""
        oldest = next(iter(self._under_way.values()), None)
        return 0.0 if oldest is None else max(self._context.redis_ms() - oldest.claimed_ms, 0) / 1000
