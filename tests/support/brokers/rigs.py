"""A broker as the conformance suite needs it: a sink to it, and a look at what it has stored."""

import asyncio
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import nats
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingLeft
from nats.js.api import AckPolicy, ConsumerConfig

from bridge.clock import SystemClock
from bridge.cloudevents import Encoder
from bridge.contracts import Message
from bridge.errors import Refused
from bridge.expiration import Expiration, Identity, Via
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream import JetStreamSink
from bridge.sinks.stdout import StdoutSink
from tests.support.brokers.caller import Caller
from tests.support.servers import NatsServer, require

FETCH = 1000
PATIENCE = 30.0
SECRET = "hunter2"
"""The password of all tests."""
NASTY_KEYS = [
    *[b"", b"_", b"_gap", b":", b"a.b.>", b"*", b"\x00\r\n\xff", "ü\n".encode(), b"{key}", b" ", b"%", b'"'],
    *[b'50%25 "q" \\', b"\xff%a\xc3\xa4", b"line\r\nfeed: x", "größe:\u00a0ü\u2028".encode(), "Euro € 😀".encode()],
]
"""What a key may be, and a header, a subject or JSON may stumble over."""


class Observed:
    """A `SinkEvents` that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.resends: list[int] = []

    def stream_warned(self, text: str) -> None:
        """See `SinkEvents`."""
        self.warnings.append(text)

    def resent(self, count: int) -> None:
        """See `SinkEvents`."""
        self.resends.append(count)


def messages(
    count: int, *, first: int = 0, mode: Literal["structured", "binary"] = "structured", keys: Sequence[bytes] = ()
) -> list[Message]:
    """`count` messages with keys of their own, or one for each of `keys`."""
    encoder, identity = Encoder("/redis", 0, mode), Identity("/redis", 0)
    made = []
    for number, key in enumerate(keys or [b"share:%d" % i for i in range(first, first + count)]):
        deadline_ms = 1_795_346_562_000 + first + number
        id_ = identity.of_deadline(key, deadline_ms)
        made.append(encoder.encode(Expiration(id_, key, deadline_ms, deadline_ms + 2, Via.NOTIFICATION)))
    return made


def ids(batch: Sequence[Message]) -> list[str]:
    """Their ids."""
    return [message.id for message in batch]


async def deliver(caller: Caller, batch: Sequence[Message]) -> None:
    """Publish as delivery does: until it is acked."""
    await caller.deliver(batch)


@dataclass(frozen=True)
class Received:
    """A message as a consumer gets it of a broker."""

    channel: str
    """The subject, or the topic."""
    key: bytes | None
    """Kafka's; NATS has none."""
    headers: Mapping[str, str]
    body: bytes


class Rig(ABC):
    """One kind of broker, running."""

    def __init__(self) -> None:
        self.observed = Observed()

    @abstractmethod
    def sink(self) -> Caller:
        """A new one, to be opened."""

    @abstractmethod
    async def stored(self) -> list[str]:
        """The ids of all events that the broker has, in its order."""

    @abstractmethod
    def freeze(self) -> None:
        """From now on the broker takes nothing, and says nothing."""

    @abstractmethod
    def thaw(self) -> None:
        """It goes on."""

    async def __aenter__(self) -> Self:
        return self

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...


class BrokerRig(Rig):
    """One that keeps headers, too."""

    @abstractmethod
    async def received(self) -> list[Received]:
        """All messages that the broker has, in its order, as a consumer gets them."""

    async def published(self, batch: Sequence[Message]) -> list[Received]:
        """Publish the batch with a new sink; then the same as `received`."""
        sink = self.sink()
        try:
            await sink.open()
            await sink.publish(batch)
        finally:
            await sink.close()
        return await self.received()


class StdoutRig(Rig):
    """A pipe, and a thread that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self._out, self.fd = os.pipe()
        self._data = bytearray()
        self._flowing = threading.Event()
        self._flowing.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def sink(self) -> Caller:
        """See `Rig`."""
        return Caller(StdoutSink(SystemClock(), self.fd))

    async def lines(self) -> list[Any]:
        """All that was written, once nobody can write any more."""
        self.close_writer()
        await asyncio.to_thread(self._reader.join, PATIENCE)
        return [orjson.loads(line) for line in bytes(self._data).splitlines()]

    async def stored(self) -> list[str]:
        """See `Rig`."""
        return [line["id"] for line in await self.lines()]

    def freeze(self) -> None:
        """See `Rig`."""
        self._flowing.clear()

    def thaw(self) -> None:
        """See `Rig`."""
        self._flowing.set()

    def close_writer(self) -> None:
        """So that the reader sees the end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        self.close_writer()
        await asyncio.to_thread(self._reader.join, PATIENCE)

    def _read(self) -> None:
        while chunk := os.read(self._out, 4096):
            self._data += chunk
            self._flowing.wait()
        os.close(self._out)


class JetStreamRig(BrokerRig):
    """A NATS server of its own."""

    def __init__(self, config: str = "", **settings: Any) -> None:  # noqa: ANN401 - of any field's type
        super().__init__()
        require(NatsServer)
        self.server = NatsServer(config)
        self.settings = {"nats_url": self.server.url, **settings}

    def sink(self, limits: JetStreamLimits | None = None, **settings: Any) -> Caller:  # noqa: ANN401 - likewise
        """See `Rig`."""
        made = Settings(**{**self.settings, **settings})
        return Caller(JetStreamSink(made, 0, SystemClock(), limits or JetStreamLimits(), self.observed))

    @contextlib.asynccontextmanager
    async def opened(self, limits: JetStreamLimits | None = None, **settings: Any) -> AsyncIterator[Caller]:  # noqa: ANN401 - likewise
        """A new one, open until the end of the block."""
        sink = self.sink(limits, **settings)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - the library's
        """A client of the test's own."""
        client = await nats.connect(self.server.url, **options)
        try:
            yield client
        finally:
            await client.close()

    async def stored(self, stream: str = "EXPIRY", **options: Any) -> list[str]:  # noqa: ANN401 - the library's
        """See `Rig`."""
        return [message.headers["Nats-Msg-Id"] for message in await self.received(stream, **options)]

    async def received(self, stream: str = "EXPIRY", **options: Any) -> list[Received]:  # noqa: ANN401 - the library's
        """See `BrokerRig`."""
        found: list[Msg] = []
        async with self.client(**options) as client:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(stream)
            subscription = await jetstream.pull_subscribe(
                "", durable="stored", stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
            )
            with contextlib.suppress(NothingLeft):
                while len(found) < info.state.messages:
                    found += await subscription.fetch(FETCH)
            await jetstream.delete_consumer(stream, "stored")
        return [Received(message.subject, None, message.headers or {}, message.data) for message in found]

    def freeze(self) -> None:
        """See `Rig`."""
        self.server.pause()

    def thaw(self) -> None:
        """See `Rig`."""
        self.server.resume()

    async def __aenter__(self) -> Self:
        self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()


def batches(count: int, size: int) -> list[list[Message]]:
    """`count` batches of `size` messages."""
    return [messages(size, first=number * size) for number in range(count)]


async def works(sink: Caller) -> None:
    """It opens, and publishes."""
    try:
        await sink.open()
        await sink.publish(messages(1))
    finally:
        await sink.close()


async def refused(sink: Caller, reason: str) -> None:
    """`open()` says so, with a reason that matches, and does not give SECRET away."""
    try:
        with pytest.raises(Refused, match=reason) as caught:
            await sink.open()
    finally:
        await sink.close()
    assert SECRET not in str(caught.value)
