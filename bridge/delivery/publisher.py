"""Loads on their way to the broker: what is in flight, what is stuck, and what waits behind either.

Guarantees: an acked message is never sent again, whatever happens to its neighbours, and not on the next session
either. A refused message is tried again separately. A message without an answer for `late` seconds takes no room from
others. A message that is stuck for too long, while others pass, becomes a dead letter. The publisher neither reads the
outbox nor settles.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from bridge.backoff import Backoff
from bridge.contracts import DeadLetter, Order, Sink
from bridge.delivery.context import Context
from bridge.delivery.flight import Flight
from bridge.delivery.held import Held
from bridge.delivery.link import Link
from bridge.delivery.parcels import Load, Parcel, Progress
from bridge.delivery.report import StuckReport
from bridge.errors import NotConnected
from bridge.expiration import Event, Expiration, GapRecord


class Publisher:
    """See the module. `done` is called with each entry whose last message has its final receipt."""

    def __init__(self, sink: Sink, context: Context, done: Callable[[Progress], None]) -> None:
        self._sink = sink
        self._context = context
        self._clock = context.clock
        self._limits = context.limits
        self._telemetry = context.telemetry
        self._tracer = context.tracer
        self._done = done
        self._by_shard = sink.order is Order.SHARD
        self._last: dict[int, asyncio.Task[None]] = {}
        """By shard: the last flight, where a shard's flights keep their order."""
        self.link = Link(sink, context)
        self.held = Held(context, sink.channel)
        self.order = self.held.order
        self.stuck = self.held.stuck
        self._report = StuckReport(self.stuck, context)
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._failures = asyncio.Queue[BaseException]()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self.room = asyncio.Event()
        """Something has left: there may be room for more."""

    async def fly(self, load: Load) -> None:
        """Send a load as soon as there is room for it. From then on its keys are busy."""
        while self._crowded(load):
            self.room.clear()
            await self.room.wait()
        self.order.busy |= load.keys
        self._start(load, stuck=False)

    @property
    def full(self) -> bool:
        """Whether no more may be read now."""
        return self.held.full() if self._by_shard else self.held.overflowing

    @property
    def occupied(self) -> bool:
        """Whether there would be no room if all that is in flight got stuck."""
        return self.held.full(self._in_flight, self._in_flight_bytes)

    async def failed(self) -> NoReturn:
        """Raise the error of a flight that cannot be tried again."""
        raise await self._failures.get()

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """All flights."""
        return list(self._flights)

    async def retry(self) -> NoReturn:
        """Send again what is stuck, when its time has come."""
        while True:
            self.stuck.changed.clear()
            await self._clock.wait(self.stuck.changed, self.stuck.until_due())
            while parcels := self.stuck.take_due(self._limits.batch):
                self._start(Load.of(parcels), stuck=True)

    async def watch(self) -> NoReturn:
        """Look for messages that are late, or stuck for too long, and report what is stuck."""
        while True:
            await self._clock.tick(self._limits.watch)
            now = self._clock.monotonic()
            for flight in self._flights.values():
                if not flight.stuck and flight.left and now - flight.since >= self._limits.late:
                    self._late(flight)
            self._give_up()
            self._report.update()

    # One flight.

    def _crowded(self, load: Load) -> bool:
        limits = self._limits
        return self._in_flight > 0 and (
            self._in_flight + len(load.messages) > limits.in_flight
            or self._in_flight_bytes + load.size > limits.in_flight_bytes
        )

    def _start(self, load: Load, *, stuck: bool) -> None:
        flight = Flight(load, self, self._clock.monotonic(), stuck=stuck, whole=self._by_shard)
        if not stuck:
            self._move(len(load.messages), load.size)
        shard = load.stretches[0].progress.settlement.shard
        task = asyncio.create_task(self._deliver(flight, self._last.get(shard)), name="deliver")
        self._flights[task] = flight
        if self._by_shard:
            self._last[shard] = task
        task.add_done_callback(self._ended)

    async def _deliver(self, flight: Flight, former: asyncio.Task[None] | None) -> None:
        """Publish until nothing of it is left. `former`: the flight that has to be done before."""
        if former is not None:
            await former  # not a lock: it would go to whichever task asks for it first
        backoff = Backoff()
        while True:
            session = await self.link.session()
            try:
                await session.publish(flight.batch(), flight)
            except NotConnected as error:
                self.link.lost(session)
                if flight.left:
                    self._telemetry.messages_retried(flight.left, str(error), 0.0)
            else:
                if flight.left:  # refused, and to keep its order
                    await self._clock.sleep(backoff.next())
            if not flight.left:
                return
            flight = self._rest(flight)

    def _rest(self, flight: Flight) -> Flight:
        """A flight of what is left, which replaces the former one."""
        rest = Flight(Load.of(flight.open_parcels()), self, flight.since, stuck=flight.stuck, whole=self._by_shard)
        if (task := asyncio.current_task()) is not None:
            self._flights[task] = rest
        return rest

    def _ended(self, task: asyncio.Task[None]) -> None:
        shard = self._flights.pop(task).load.stretches[0].progress.settlement.shard
        if self._last.get(shard) is task:
            del self._last[shard]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.put_nowait(error)

    def _move(self, count: int, size: int) -> None:
        """Change what is in flight, by messages and bytes; negative for less."""
        self._in_flight += count
        self._in_flight_bytes += size
        self._telemetry.messages_in_flight(self._in_flight)
        if count < 0:
            self.room.set()

    # What receipts do. See `Tower`.

    def landed(self, flight: Flight) -> None:
        """See `Tower`. The hot path: once for each load."""
        load = flight.load
        self._passed()
        if len(self.stuck):
            self.stuck.done(load.messages)
        if not flight.stuck:
            self._move(-len(load.messages), -load.size)
        for progress, _, length in load.stretches:
            progress.open -= length
            if not progress.open:
                self._done(progress)
        self._published(load.events)
        self._release(load.keys)

    def acked(self, flight: Flight, parcels: list[Parcel]) -> None:
        """See `Tower`."""
        self._passed()
        self._published([parcel.event for parcel in parcels])
        self._final(flight, parcels)

    def refused(self, flight: Flight, reasons: list[tuple[Parcel, str]], *, alone: bool) -> None:
        """See `Tower`."""
        if self._by_shard:
            if alone:  # nothing may be acked of this shard meanwhile, though the broker would take it
                self._passed()
            for parcel, reason in reasons:
                self.stuck.late(parcel, reason)
            self._telemetry.messages_retried(len(reasons), reasons[0][1], 0.0)
            return
        self._leave(flight, [parcel for parcel, _ in reasons])
        delays = [self.held.refused(parcel, reason) for parcel, reason in reasons]
        soonest = min([delay for delay in delays if delay is not None], default=0.0)
        self._telemetry.messages_retried(len(reasons), reasons[0][1], soonest)
        self.room.set()

    def rejected(self, flight: Flight, reasons: list[tuple[Parcel, str]]) -> None:
        """See `Tower`."""
        self._bury(reasons)
        self._final(flight, [parcel for parcel, _ in reasons])

    def _bury(self, reasons: list[tuple[Parcel, str]]) -> None:
        for parcel, reason in reasons:
            parcel.progress.dead.append(DeadLetter(parcel.event, reason))
        self._telemetry.messages_rejected([reason for _, reason in reasons])

    def _final(self, flight: Flight, parcels: list[Parcel]) -> None:
        """These have their final receipts."""
        self._leave(flight, parcels)
        self.stuck.done([parcel.message for parcel in parcels])
        self._close(parcels)

    def _close(self, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            progress = parcel.progress
            progress.open -= 1
            if not progress.open:
                self._done(progress)
        self._release([parcel.lane for parcel in parcels])

    def _leave(self, flight: Flight, parcels: list[Parcel]) -> None:
        """They are no longer in flight."""
        if not flight.stuck:
            self._move(-len(parcels), -sum([len(parcel.message.body) for parcel in parcels]))

    def _release(self, keys: Iterable[bytes]) -> None:
        """What waits behind these keys goes next."""
        released = self.order.release(keys)
        for start in range(0, len(released), self._limits.batch):
            self._start(Load.of(released[start : start + self._limits.batch]), stuck=False)
        self.room.set()

    def _passed(self) -> None:
        self.link.proven()
        self.stuck.flows()

    def _published(self, events: Sequence[Event]) -> None:
        """The messages of these events were acked just now. Lags are in seconds, from the deadlines."""
        if self._context.values:
            self._telemetry.values_published(
                [event.value for event in events if isinstance(event, Expiration) and event.value is not None]
            )
        now = self._context.redis_ms()
        lags = [
            max(now - event.deadline_ms, 0) / 1000
            for event in events
            if not isinstance(event, GapRecord) and event.deadline_ms is not None
        ]
        self._telemetry.messages_published(len(events), lags)
        if self._tracer is not None:
            self._tracer.acked(events, now)

    # What time does.

    def _late(self, flight: Flight) -> None:
        """Some of it was not answered for long: that part no longer takes room from others."""
        parcels = flight.open_parcels()
        self._leave(flight, parcels)
        flight.stuck = True
        for parcel in parcels:
            self.stuck.late(parcel, f"not acked for {self._limits.late:g} s")

    def _give_up(self) -> None:
        """Make dead letters of what is stuck for too long."""
        given_up = self.stuck.take_given_up(self._context.stuck_seconds, self._limits.give_up)
        if not given_up:
            return
        ids = {stuck.parcel.message.id for stuck in given_up}
        for flight in self._flights.values():
            if flight.stuck or self._by_shard:
                flight.give_up(ids)
        since = f"for {self._context.stuck_seconds:g} s, while the broker took others"
        self._bury([(stuck.parcel, f"{stuck.reason}: {since}") for stuck in given_up])
        self._close([stuck.parcel for stuck in given_up])
