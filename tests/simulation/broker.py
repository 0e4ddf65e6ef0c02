"""A simulated broker, and the sink that publishes to it: what a sink and its broker do, without their wire protocol.

* `jetstream`: a message whose id was stored within the duplicate window is acked, and not stored again.
* `kafka`: whatever arrives is stored.
* `subject`: JetStream, one message for each subject: an id is stored once.
* `transaction`: Kafka, transactions: a session fences former ones of a shard at its first batch, then reads what is
  stored, and sends only the rest. What a fenced one has on its way is dropped.
* `redis`: the real sink and its script, on a server of its own (`streams.py`).

What may go wrong: the broker is away; an ack comes late, or never; the connection ends, and what was on its way is
stored all the same, seconds later; a message is refused for good, or all are for a while.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.contracts import Batch, Message, Order, Receipts
from bridge.errors import NotConnected
from bridge.sinks.session_end import SessionEnd
from tests.simulation.network import Address, Network
from tests.simulation.redis.server import Server

STREAMS: Address = ("streams", 6379)
DUPLICATE_WINDOW = 120.0
PUBLISH_TIMEOUT = 5.0
LOST = "the connection to the broker was lost"
FENCE_SECONDS = 0.015
ONCE = frozenset({"subject", "transaction", "redis"})
"""Kinds with which each id is stored once."""
REFUSED_PREFIX = b"refused:"
"""Keys whose messages this broker never takes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in the stream."""

    id: str
    key: bytes
    body: bytes
    gap: bool
    at: float
    """Virtual seconds."""


@dataclass
class Faults:
    """How often a publish goes wrong."""

    slow: float = 0.0
    ack_lost: float = 0.0
    retryable: float = 0.0
    cut: float = 0.0
    late: float = 0.0
    """Of those that are cut: how many are stored all the same."""


@dataclass(eq=False, slots=True)
class Producer:
    """A transactional one, of a shard."""

    known: frozenset[str]
    """Ids that were stored when it had fenced the former one."""


@dataclass
class Broker:
    """The stream, and how well it is reached."""

    kind: str
    network: Network
    rng: random.Random
    tell: Callable[[str], None]
    faults: Faults = field(default_factory=Faults)
    up: bool = True
    sessions: list["SimSession"] = field(default_factory=list)
    """Those that serve."""
    stored: list[Stored] = field(default_factory=list)
    server: Server | None = None
    """Of the streams, where it is a Redis."""
    _ids: dict[str, float] = field(default_factory=dict)
    _producers: dict[int, Producer] = field(default_factory=dict)
    """By shard: the one that is not fenced."""

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.network.loop.time()

    def store(self, batch: Sequence[Message], shard: int = 0, producer: Producer | None = None) -> None:
        """What has arrived."""
        now = self.now
        if producer is not None and self.fenced(shard, producer):
            self.tell(f"fenced: {len(batch)} messages")
            return
        for message in batch:
            if message.key.startswith(REFUSED_PREFIX):
                continue
            age = now - self._ids.get(message.id, float("-inf"))
            if age < {"jetstream": DUPLICATE_WINDOW, "subject": float("inf")}.get(self.kind, 0.0):
                self.tell(f"copy {message.id[:8]}")
                continue
            self._ids[message.id] = now
            self.keep(Stored(message.id, message.key, message.body, message.gap, now))

    def keep(self, stored: Stored) -> None:
        """It is in the stream."""
        self.stored.append(stored)
        self.tell(f"stored {stored.id[:8]} {stored.body.decode(errors='replace')}")

    def fence(self, shard: int) -> Producer:
        """A new producer, and what is stored by now. No other one stores anything of the shard any more."""
        producer = self._producers[shard] = Producer(frozenset(self._ids))
        return producer

    def fenced(self, shard: int, producer: Producer) -> bool:
        """Whether there is a newer one."""
        return self._producers.get(shard) is not producer

    def lose(self) -> None:
        """All connections end, and there are no new ones."""
        self.up = False
        for session in list(self.sessions):
            session.lose()
        if self.server is not None:
            self.network.deaf(STREAMS)
            self.server.disconnect(self.server.sessions)

    def back(self) -> None:
        """It takes connections again."""
        self.up = True
        if self.server is not None:
            self.network.listen(STREAMS, self.server)


class SimSink:
    """See `bridge.contracts.Sink`."""

    def __init__(self, broker: Broker) -> None:
        self.order = Order.SHARD if broker.kind == "transaction" else Order.KEY
        self._broker = broker

    async def connect(self) -> "SimSession":
        """See `Sink`."""
        await asyncio.sleep(0.002)
        if not self._broker.up:
            raise NotConnected("the broker is away")
        session = SimSession(self._broker)
        self._broker.sessions.append(session)
        return session

    def channel(self, message: Message) -> str:
        """See `Sink`."""
        return "gaps" if message.gap else "expirations"


class SimSession:
    """See `bridge.contracts.Session`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._end = SessionEnd()
        self._under_way: dict[asyncio.Future[str], None] = {}
        self._producers: dict[int, Producer] = {}

    def lose(self, reason: str = LOST) -> None:
        """The connection ends."""
        if self._end.set(reason):
            self._broker.sessions.remove(self)
            for waiting in list(self._under_way):
                _settle(waiting, reason)

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session`."""
        if self._end.reason is not None:
            raise NotConnected(self._end.reason)
        broker, messages = self._broker, batch.messages
        shard = batch.runs[0].shard
        producer = await self._producer(shard)
        new = [message for message in messages if producer is None or message.id not in producer.known]
        loop = broker.network.loop
        problem, again, delay = self._fate(producer)
        outcome: asyncio.Future[str] = loop.create_future()
        if not problem or (problem == LOST and broker.rng.random() < broker.faults.late):
            way = broker.rng.random() * (4.0 if problem or again else delay)
            loop.call_later(way, broker.store, new, shard, producer, context=broker.network.context)
        if again:
            loop.call_later(PUBLISH_TIMEOUT, broker.store, new, context=broker.network.context)
        loop.call_later(delay, _settle, outcome, problem, context=broker.network.context)
        self._under_way[outcome] = None
        try:
            problem = await outcome
        finally:
            self._under_way.pop(outcome, None)
        if problem == LOST or (producer is not None and broker.fenced(shard, producer)):
            self.lose()
        if self._end.reason is not None:
            raise NotConnected(self._end.reason)
        if problem:
            receipts.refused(dict.fromkeys(range(len(messages)), problem))
            return
        never = {place: "no" for place, message in enumerate(messages) if message.key.startswith(REFUSED_PREFIX)}
        receipts.rejected(never)
        receipts.acked([place for place in range(len(messages)) if place not in never])

    def _fate(self, producer: Producer | None) -> tuple[str, bool, float]:
        """Of a batch: the problem with it, if any; whether it is sent twice; seconds until its session knows."""
        rng, faults = self._broker.rng, self._broker.faults
        delay = 0.0005 + rng.random() * (2.0 if rng.random() < faults.slow else 0.002)
        chance = rng.random()
        if chance < faults.cut:
            return LOST, False, delay
        if chance < faults.cut + faults.ack_lost:
            if producer is not None:
                return LOST, False, delay  # whether the transaction is committed is unknown
            return "", True, PUBLISH_TIMEOUT + delay  # the session sends it once more, and that is acked
        if chance < faults.cut + faults.ack_lost + faults.retryable:
            return "the broker takes nothing now", False, delay
        return "", False, delay

    async def _producer(self, shard: int) -> Producer | None:
        """That of this session, where it has any. Raises NotConnected."""
        if self._broker.kind != "transaction":
            return None
        if shard not in self._producers:
            await asyncio.sleep(FENCE_SECONDS)
            if self._end.reason is not None:
                raise NotConnected(self._end.reason)
            self._producers[shard] = self._broker.fence(shard)
        return self._producers[shard]

    async def ended(self) -> str:
        """See `Session`."""
        return await self._end.wait()

    async def close(self) -> None:
        """See `Session`."""
        self.lose("closed")


def _settle(outcome: asyncio.Future[str], problem: str) -> None:
    if not outcome.done():
        outcome.set_result(problem)
