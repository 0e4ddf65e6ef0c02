"""A simulated broker, and the sink that publishes to it: what a sink and its broker do, without their wire protocol.

* `jetstream`: a message whose id was stored within the duplicate window is acked, and not stored again.
* `kafka`: whatever arrives is stored.

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
from tests.simulation.network import Network

DUPLICATE_WINDOW = 120.0
PUBLISH_TIMEOUT = 5.0
LOST = "the connection to the broker was lost"
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
    _ids: dict[str, float] = field(default_factory=dict)

    def store(self, batch: Sequence[Message]) -> None:
        """What has arrived."""
        now = self.network.loop.time()
        for message in batch:
            if message.key.startswith(REFUSED_PREFIX):
                continue
            copy = now - self._ids.get(message.id, -DUPLICATE_WINDOW) < DUPLICATE_WINDOW
            if self.kind == "jetstream" and copy:
                self.tell(f"copy {message.id[:8]}")
                continue
            self._ids[message.id] = now
            self.stored.append(Stored(message.id, message.key, message.body, message.gap, now))
            self.tell(f"stored {message.id[:8]} {message.body.decode(errors='replace')}")

    def lose(self, *, up: bool) -> None:
        """All connections end."""
        self.up = up
        for session in list(self.sessions):
            session.lose()


class SimSink:
    """See `bridge.contracts.Sink`."""

    order = Order.KEY

    def __init__(self, broker: Broker) -> None:
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
        rng, faults, loop = broker.rng, broker.faults, broker.network.loop
        delay = 0.0005 + rng.random() * (2.0 if rng.random() < faults.slow else 0.002)
        outcome: asyncio.Future[str] = loop.create_future()
        chance, problem, again = rng.random(), "", False
        if chance < faults.cut:
            problem = LOST
        elif chance < faults.cut + faults.ack_lost:
            again, delay = True, PUBLISH_TIMEOUT + delay  # the session sends it once more, and that is acked
        elif chance < faults.cut + faults.ack_lost + faults.retryable:
            problem = "the broker takes nothing now"
        if not problem or (problem == LOST and rng.random() < faults.late):
            way = rng.random() * (4.0 if problem or again else delay)
            loop.call_later(way, broker.store, tuple(messages), context=broker.network.context)
        if again:
            loop.call_later(PUBLISH_TIMEOUT, broker.store, tuple(messages), context=broker.network.context)
        loop.call_later(delay, _settle, outcome, problem, context=broker.network.context)
        self._under_way[outcome] = None
        try:
            problem = await outcome
        finally:
            self._under_way.pop(outcome, None)
        if problem == LOST:
            self.lose()
        if self._end.reason is not None:
            raise NotConnected(self._end.reason)
        if problem:
            receipts.refused(dict.fromkeys(range(len(messages)), problem))
            return
        never = {place: "no" for place, message in enumerate(messages) if message.key.startswith(REFUSED_PREFIX)}
        receipts.rejected(never)
        receipts.acked([place for place in range(len(messages)) if place not in never])

    async def ended(self) -> str:
        """See `Session`."""
        return await self._end.wait()

    async def close(self) -> None:
        """See `Session`."""
        self.lose("closed")


def _settle(outcome: asyncio.Future[str], problem: str) -> None:
    if not outcome.done():
        outcome.set_result(problem)
