"""What arrives at the broker: a consumer like any user's, and the tally that the demo keeps of it."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Self

from bridge.cloudevents import EXPIRED_TYPE
from bridge.commands.demo.errors import DemoError

READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One stored message."""

    id: str
    place: str
    """Where it is stored, in words."""
    key: str
    via: str
    lag: float | None
    """Seconds from the deadline to the moment at which the broker stored it; None where no deadline was known."""
    body: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Keys that were set, and what arrived for them."""

    keys: Collection[str]
    messages: Sequence[StoredMessage]

    @property
    def missing(self) -> list[str]:
        """The keys for which nothing arrived."""
        return sorted(set(self.keys) - {message.key for message in self.messages})

    @property
    def delivered(self) -> int:
        """How many keys something arrived for."""
        return len(self.keys) - len(self.missing)

    @property
    def duplicates(self) -> int:
        """Messages whose id had been stored already."""
        return len(self.messages) - len(self._first)

    @property
    def surplus(self) -> int:
        """Messages that ought not to be: each of the keys expires once, hence has one id."""
        return len(self._first) - self.delivered

    @property
    def lags(self) -> tuple[float, float]:
        """The median and the longest, in seconds; of duplicates, the first counts."""
        lags = [message.lag for message in self._first.values() if message.lag is not None]
        return (median(lags), max(lags)) if lags else (0.0, 0.0)

    @property
    def _first(self) -> dict[str, StoredMessage]:
        """By id."""
        return {message.id: message for message in reversed(self.messages)}


class Consumer(ABC):
    """Reads what the broker has stored, from the beginning, for as long as it is entered."""

    def __init__(self, show: Callable[[StoredMessage], None]) -> None:
        """`show` is called with each message as it arrives."""
        self._show = show
        self._messages: list[StoredMessage] = []
        self._read = 0
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._opened = AsyncExitStack()
        """What is to be given back."""

    @abstractmethod
    async def open(self) -> None:
        """Begin to read: from now on each message is handed to `arrived`. Raises BridgeError."""

    @abstractmethod
    async def stored(self) -> int:
        """How many messages the broker holds."""

    async def __aenter__(self) -> Self:
        async with self._opened as opening:
            await self.open()
            self._opened = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    def tally(self, keys: Collection[str]) -> Tally:
        """What has arrived for `keys` so far."""
        return Tally(keys, [message for message in self._messages if message.key in keys])

    async def of(self, keys: Collection[str], patience: float) -> Tally:
        """What arrived for `keys`: as soon as each is there, or after `patience` seconds. Raises DemoError."""
        try:
            async with asyncio.timeout(patience):
                while self.tally(keys).missing:
                    await self._next()
        except TimeoutError:
            pass  # the tally says what is missing
        return self.tally(keys)

    async def complete(self) -> None:
        """Return when all that the broker holds was read. Raises DemoError."""
        stored = await self.stored()
        try:
            async with asyncio.timeout(READ_SECONDS):
                while self._read < stored:
                    await self._next()
        except TimeoutError:
            raise DemoError(f"read only {self._read} of the {stored} messages that are stored") from None

    def arrived(self, message_id: str, place: str, body: bytes, stored: float) -> None:
        """Note one message; `message_id` is that of its header, `stored` a Unix time."""
        self._read += 1
        self._changed.set()
        event = json.loads(body)
        if event["type"] != EXPIRED_TYPE:
            return
        data = event["data"]
        deadline_ms = data["deadline_ms"]
        message = StoredMessage(
            id=message_id,
            place=place,
            key=data["key"],
            via=data["via"],
            lag=None if deadline_ms is None else max(stored - deadline_ms / 1000, 0.0),
            body=body.decode(),
        )
        self._messages.append(message)
        self._show(message)

    def failed(self, error: BaseException) -> None:
        """Nothing more will arrive: waiting callers get an error."""
        self._failure = error
        self._changed.set()

    async def _next(self) -> None:
        if self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise DemoError(f"the broker cannot be read: {type(self._failure).__name__}") from self._failure
