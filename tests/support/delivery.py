"""Delivery between an outbox and a sink that do as a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from bridge.clock import SystemClock
from bridge.cloudevents import Encoder
from bridge.contracts import Batch, Entry, Message, Order, Receipts, Settlement
from bridge.delivery.context import Context
from bridge.delivery.loop import Delivery
from bridge.errors import BridgeError, NotConnected
from bridge.expiration import Expiration, Via
from bridge.limits import DeliveryLimits
from bridge.telemetry.events import Telemetry
from tests.support.servers import wait_until

WATCH = 0.02
QUICK = DeliveryLimits(watch=WATCH, stuck_retry_first=0.01, stuck_retry_most=0.05)
SMALL = replace(QUICK, batch=10, batch_bytes=10_000, in_flight=40, in_flight_bytes=20_000)


class InstantClock(SystemClock):
    """Sleeps only for a turn of the event loop, but between looks; remembers for how long it was asked to."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.passed = 0.0
        """Seconds by which it is ahead."""
        self.gathered: Callable[[], None] = lambda: None
        """To be called when what is acked has been gathered for long enough: then time need not pass."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.passed

    async def sleep(self, seconds: float) -> None:
        if seconds == WATCH:
            await asyncio.sleep(seconds)
            return
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        self.gathered = act
        return super().later(0 if seconds == QUICK.settle_gather else seconds, act)


class FakeOutbox:
    """An outbox in memory."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)
        self.settled: list[Settlement] = []
        self.settlings = 0
        self.read_errors: list[BridgeError] = []
        self.settle_errors: list[BridgeError] = []
        self.draining = False
        self.reread_ids: list[bytes] = []
        self.unreadable: set[int] = set()
        """Shards whose entries cannot be read again."""
        self.elsewhere: set[int] = set()
        """Shards that other bridges have now."""
        self._cursor = 0

    async def read(self, limit: int) -> Sequence[Entry]:
        await asyncio.sleep(0)
        if self.read_errors:
            raise self.read_errors.pop(0)
        await wait_until(lambda: self.draining or len(self.entries) > self._cursor)
        found = self.entries[self._cursor : self._cursor + limit]
        self._cursor += len(found)
        settled = {settlement.id for settlement in self.settled}
        return [entry for entry in found if entry.id not in settled]

    async def again(self, shard: int, entry_id: bytes) -> Entry | None:
        await asyncio.sleep(0)
        if shard in self.unreadable | self.elsewhere:
            raise NotConnected("gone")
        self.reread_ids.append(entry_id)
        return next((entry for entry in self.entries if (entry.shard, entry.id) == (shard, entry_id)), None)

    def holds(self, shard: int) -> bool:
        return shard not in self.elsewhere

    def reread(self) -> None:
        self._cursor = 0

    @property
    def read_so_far(self) -> int:
        return self._cursor

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await asyncio.sleep(0)
        if self.settle_errors:
            raise self.settle_errors.pop(0)
        self.settled += settlements
        self.settlings += 1


class Gone(Exception):
    """A fake session's `answer`: the session has ended, after it acked some."""

    def __init__(self, reason: str, acked: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.acked = acked


class FakeSink:
    """Makes sessions, which take what `answer` lets pass."""

    def __init__(self) -> None:
        self.order = Order.KEY
        self.answer: Callable[[Sequence[Message]], Answer] = lambda _: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.published: list[Sequence[Message]] = []
        self.under_way: list[set[bytes]] = []
        self.most_under_way = 0
        self.silent: Callable[[Message], bool] = lambda _: False
        """Which messages get no receipt until `speak`."""
        self.speak = asyncio.Event()
        self.sessions: list[FakeSession] = []
        self.connect_errors: list[BridgeError] = []

    async def connect(self) -> "FakeSession":
        await asyncio.sleep(0)
        if self.connect_errors:
            raise self.connect_errors.pop(0)
        assert all(session.closed for session in self.sessions), "two sessions at once"
        self.sessions.append(FakeSession(self))
        return self.sessions[-1]

    def channel(self, message: Message) -> str:
        return f"topic-of-{'gaps' if message.gap else 'keys'}"

    @property
    def ids(self) -> list[str]:
        return [message.id for batch in self.published for message in batch]


Answer = BridgeError | Gone | Mapping[int, str] | None
"""Of a batch: an error to raise, the end of the session, or why messages are refused."""


class Never(dict[int, str]):
    """An answer: why messages are rejected."""


class Alone(dict[int, str]):
    """An answer: why messages are refused, of whose stream alone that is true."""


class FakeSession:
    """One session of it."""

    def __init__(self, sink: FakeSink) -> None:
        self.sink = sink
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed = False

    def lose(self, reason: str = "gone") -> None:
        if not self.end.done():
            self.end.set_result(reason)

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        sink, messages = self.sink, batch.messages
        keys = {message.field_lane or message.key for message in messages}
        if sink.order is Order.KEY:
            assert len(keys) == len(messages), "a key twice in one batch"
            assert all(keys.isdisjoint(others) for others in sink.under_way), "a key in two batches at once"
        assert sum(run.length for run in batch.runs) == len(messages)
        sink.under_way.append(keys)
        sink.most_under_way = max(sink.most_under_way, sum(map(len, sink.under_way)))
        try:
            await sink.gate.wait()
            await asyncio.sleep(0)
            sink.published.append(messages)
            answer = sink.answer(messages)
            if isinstance(answer, Gone):
                receipts.acked(answer.acked)
                self.lose(str(answer))
                raise NotConnected(str(answer))
            if isinstance(answer, BridgeError):
                raise answer
            if self.end.done():
                raise NotConnected(self.end.result())
            not_acked = answer or {}
            if isinstance(not_acked, Never):
                receipts.rejected(not_acked)
            else:
                receipts.refused(not_acked, alone=isinstance(not_acked, Alone))
            silent = [index for index, message in enumerate(messages) if sink.silent(message)]
            receipts.acked([n for n in range(len(messages)) if n not in not_acked and n not in silent])
            if silent:
                await sink.speak.wait()
                receipts.acked(silent)
        finally:
            sink.under_way.remove(keys)

    async def ended(self) -> str:
        return await asyncio.shield(self.end)

    async def close(self) -> None:
        self.lose("closed")
        self.closed = True


def refuse_keys(batch: Sequence[Message], prefix: bytes) -> Answer:
    return {index: "full" for index, message in enumerate(batch) if message.key.startswith(prefix)}


def refuse(count: int) -> Answer:
    return dict.fromkeys(range(count), "busy")


def entry(number: int, *keys: bytes) -> Entry:
    return Entry(
        b"7-%d" % number, [Expiration(f"{number}-{i}", key, 1000, 1001, Via.SWEEP) for i, key in enumerate(keys)]
    )


class Rig:
    """A delivery with its surroundings."""

    def __init__(
        self, *entries: Entry, limits: DeliveryLimits = QUICK, stuck_seconds: float = 0.0, order: Order = Order.KEY
    ) -> None:
        self.source = FakeOutbox(*entries)
        self.sink = FakeSink()
        self.sink.order = order
        self.clock = InstantClock()
        self.telemetry = Telemetry()
        self.now = 1500.0
        encoder = Encoder("/redis", 0, "structured")
        context = Context(self.clock, limits, self.telemetry, lambda: self.now, stuck_seconds=stuck_seconds)
        self.delivery = Delivery(self.source, self.sink, encoder, context)

    @property
    def settled(self) -> list[bytes]:
        return [settlement.id for settlement in self.source.settled]

    def metric(self, name: str) -> float | None:
        return self.telemetry.metrics.registry.get_sample_value(name)

    async def drained(self) -> None:
        self.source.draining = True
        async with asyncio.timeout(10):
            await self.delivery.run()


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(rig.delivery.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
