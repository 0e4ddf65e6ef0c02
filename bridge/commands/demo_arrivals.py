"""What arrives in JetStream: a consumer like any user's, and the books that the demo keeps of it."""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bridge.cloudevents import EXPIRED_TYPE
from bridge.commands.demo_stage import DemoError
from bridge.settings import Settings
from bridge.sinks.jetstream.connect import Handlers, connect, discard
from bridge.sinks.jetstream.headers import MESSAGE_ID

READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One stored message."""

    id: str
    subject: str
    key: str
    via: str
    lag: float | None
    """Seconds from the deadline to the moment at which the stream stored it; None where no deadline was known."""
    body: str


@dataclass(frozen=True, slots=True)
class Books:
    """Keys that were set, and what arrived for them."""

    keys: Collection[str]
    arrivals: Sequence[Arrival]

    @property
    def missing(self) -> list[str]:
        """The keys for which nothing arrived."""
        return sorted(set(self.keys) - {arrival.key for arrival in self.arrivals})

    @property
    def delivered(self) -> int:
        """How many keys something arrived for."""
        return len(self.keys) - len(self.missing)

    @property
    def duplicates(self) -> int:
        """Messages whose id had been stored already."""
        return len(self.arrivals) - len({arrival.id for arrival in self.arrivals})

    @property
    def surplus(self) -> int:
        """Messages that ought not to be: each of the keys expires once, hence has one id."""
        return len({arrival.id for arrival in self.arrivals}) - self.delivered

    @property
    def lags(self) -> tuple[float, float]:
        """The median and the longest, in seconds."""
        lags = [arrival.lag for arrival in self.arrivals if arrival.lag is not None]
        return (median(lags), max(lags)) if lags else (0.0, 0.0)


class Arrivals:
    """Reads the stream from its beginning, over one connection, for as long as it is entered."""

    def __init__(self, settings: Settings, show: Callable[[Arrival], None]) -> None:
        """`show` is called with each message as it arrives."""
        self._settings = settings
        self._show = show
        self._arrivals: list[Arrival] = []
        self._read = 0
        self._arrived = asyncio.Event()
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        async def ignore(_: Exception | None = None) -> None:
            """What is lost shows in the books."""

        self._client = await connect(self._settings, Handlers(ignore, ignore, ignore))
        consumer = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        await self._client.jetstream().subscribe(
            "expired.>", stream=self._settings.nats_stream, config=consumer, cb=self._on_message
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await discard(self._client)

    def books(self, keys: Collection[str]) -> Books:
        """What has arrived for `keys` so far."""
        return Books(keys, [arrival for arrival in self._arrivals if arrival.key in keys])

    async def of(self, keys: Collection[str], patience: float) -> Books:
        """What arrived for `keys`: as soon as each is there, or after `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while self.books(keys).missing:
                    await self._next()
        except TimeoutError:
            pass  # the books say what is missing
        return self.books(keys)

    async def complete(self) -> None:
        """Return when all that the stream holds was read. Raises DemoError."""
        if self._client is None:
            raise RuntimeError("not entered")
        stream = await self._client.jetstream().stream_info(self._settings.nats_stream)
        try:
            async with asyncio.timeout(READ_SECONDS):
                while self._read < stream.state.messages:
                    await self._next()
        except TimeoutError:
            raise DemoError(f"read only {self._read} of the stream's {stream.state.messages} messages") from None

    async def _next(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _on_message(self, message: Msg) -> None:
        self._read += 1
        self._arrived.set()
        event = json.loads(message.data)
        if event["type"] != EXPIRED_TYPE:
            return
        data = event["data"]
        stored, deadline_ms = message.metadata.timestamp.timestamp(), data["deadline_ms"]
        arrival = Arrival(
            id=(message.headers or {}).get(MESSAGE_ID, ""),
            subject=message.subject,
            key=data["key"],
            via=data["via"],
            lag=None if deadline_ms is None else max(stored - deadline_ms / 1000, 0.0),
            body=message.data.decode(),
        )
        self._arrivals.append(arrival)
        self._show(arrival)
