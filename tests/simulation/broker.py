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

from bridge.contracts import Message
from bridge.errors import BridgeError, NotConnected, Rejected, Retryable
from tests.simulation.network import Network

DUPLICATE_WINDOW = 120.0
PUBLISH_TIMEOUT = 5.0
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
    session: int = 0
    """Rises when all connections are lost."""
    stored: list[Stored] = field(default_factory=list)
    _ids: dict[str, float] = field(default_factory=dict)
    _waiting: set[asyncio.Future[None]] = field(default_factory=set)

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
        self.session += 1
        for waiting in sorted(self._waiting, key=hash):
            if not waiting.done():
                waiting.set_exception(NotConnected("the connection to the broker was lost"))

    async def publish(self, batch: Sequence[Message]) -> None:
        """As a session does it. Raises what a sink raises."""
        rng, faults, loop = self.rng, self.faults, self.network.loop
        delay = 0.0005 + rng.random() * (2.0 if rng.random() < faults.slow else 0.002)
        done: asyncio.Future[None] = loop.create_future()
        chance = rng.random()
        error: BridgeError | None = None
        if chance < faults.cut:
            error = NotConnected("the connection to the broker was lost")
        elif chance < faults.cut + faults.ack_lost:
            error, delay = Retryable("no ack in time"), PUBLISH_TIMEOUT
        elif chance < faults.cut + faults.ack_lost + faults.retryable:
            error = Retryable("the broker takes nothing now")
        if error is None or delay == PUBLISH_TIMEOUT or rng.random() < faults.late:
            way = rng.random() * (delay if error is None else 4.0)
            loop.call_later(way, self.store, tuple(batch), context=self.network.context)
        loop.call_later(delay, _settle, done, error, context=self.network.context)
        self._waiting.add(done)
        try:
            await done
        finally:
            self._waiting.discard(done)
        refused = {place: "no" for place, message in enumerate(batch) if message.key.startswith(REFUSED_PREFIX)}
        if refused:
            raise Rejected(refused)


def _settle(done: asyncio.Future[None], error: BridgeError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class SimSink:
    """See `bridge.contracts.Sink`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._session: int | None = None

    @property
    def connected(self) -> bool:
        """See `Sink`."""
        return self._broker.up and self._session == self._broker.session

    async def open(self) -> None:
        """See `Sink`."""
        await asyncio.sleep(0.002)
        if not self._broker.up:
            raise NotConnected("the broker is away")
        self._session = self._broker.session

    async def publish(self, batch: Sequence[Message]) -> None:
        """See `Sink`."""
        if not self.connected:
            raise NotConnected("the sink is not open")
        await self._broker.publish(batch)

    async def close(self) -> None:
        """See `Sink`."""
        self._session = None
