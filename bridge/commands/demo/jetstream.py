"""NATS JetStream as the demo's broker."""

from collections.abc import Callable, Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic import SecretStr

from bridge.clock import SystemClock
from bridge.commands.demo.broker import Broker
from bridge.commands.demo.consumer import Consumer, StoredMessage
from bridge.commands.embedded import EmbeddedNats
from bridge.limits import JetStreamLimits
from bridge.settings import Settings, SinkKind
from bridge.sinks.jetstream.connect import Handlers, connect, discard
from bridge.sinks.jetstream.headers import MESSAGE_ID


class JetStreamBroker(Broker):
    """A NATS server with JetStream."""

    name = "NATS"
    kind = "NATS with JetStream"
    store = "stream"
    id_header = MESSAGE_ID
    copies = "the stream"
    seconds = 15

    def __init__(self) -> None:
        self.server = EmbeddedNats()

    def settings(self) -> Mapping[str, str]:
        """See `Broker`."""
        return {"BRIDGE_SINK": SinkKind.JETSTREAM, "BRIDGE_NATS_URL": self.server.url}

    def consumer(self, show: Callable[[StoredMessage], None]) -> Consumer:
        """See `Broker`."""
        return JetStreamConsumer(Settings(nats_url=SecretStr(self.server.url)), show)


class JetStreamConsumer(Consumer):
    """Reads the stream with a consumer of its own."""

    def __init__(self, settings: Settings, show: Callable[[StoredMessage], None]) -> None:
        """`settings` say where the server is, and how the stream is called."""
        super().__init__(show)
        self._settings = settings
        self._client: Client

    async def open(self) -> None:
        """See `Consumer`."""

        async def ignore(_: Exception | None = None) -> None:
            """What is lost shows in the tally."""

        self._client = await connect(self._settings, Handlers(ignore, ignore, ignore), SystemClock(), JetStreamLimits())
        self._opened.push_async_callback(discard, self._client, SystemClock(), JetStreamLimits().close)
        consumer = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        await self._client.jetstream().subscribe(
            "expired.>", stream=self._settings.nats_stream, config=consumer, cb=self._on_message
        )

    async def stored(self) -> int:
        """See `Consumer`."""
        stream = await self._client.jetstream().stream_info(self._settings.nats_stream)
        return stream.state.messages

    async def _on_message(self, message: Msg) -> None:
        self.arrived(
            (message.headers or {}).get(MESSAGE_ID, ""),
            f"on subject {message.subject}",
            message.data,
            message.metadata.timestamp.timestamp(),
        )
