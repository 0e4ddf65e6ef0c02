"""Reading a JetStream stream: an ephemeral pull consumer without acks, made anew from where it was when it is lost."""

import time
from collections.abc import Mapping
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from bridge.clock import SystemClock
from bridge.commands.readers.arrivals import Arrival, read_event
from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.api import Api
from bridge.sinks.jetstream.connect import Handlers, connect, discard
from bridge.sinks.jetstream.headers import ATTRIBUTE_PREFIX
from bridge.sinks.subjects import subjects_of

API_SECONDS = 5.0
FETCH = 500
ALL = ">"
FETCH_SECONDS = 0.25
"""How long the client library gathers messages for one `read()`."""
SILENCE_SECONDS = 3.0
"""After that the consumer is looked for: the server does not report that it is gone."""
INACTIVE_SECONDS = 60.0
"""After which the server removes the consumer of a process that was killed."""


class JetStreamReader:
    """See `Reader`."""

    def __init__(self, settings: Settings, db: int, examples: tuple[bytes, bytes]) -> None:
        """See `create`."""
        self._settings = settings
        self._api = Api.of(settings)
        self._stream = settings.nats_stream
        subjects = subjects_of(settings, db)
        self._subject = covering(*(subjects.filter(key) for key in examples))
        self._client: Client | None = None
        self._consumer: JetStreamContext.PullSubscription | None = None
        self._next: int | None = None
        """The stream's sequence number that comes next."""
        self._lost = ""
        self._heard_at = 0.0

    @property
    def place(self) -> str:
        """See `Reader`."""
        return f"JetStream stream {self._stream}, subject {self._subject}"

    async def open(self) -> None:
        """See `Reader`."""
        await self.close()

        async def on_error(error: Exception) -> None:
            if "permissions violation" in str(error).lower():
                self._lost = str(error)

        async def on_lost() -> None:
            self._lost = "the connection to NATS was lost"

        self._lost, self._heard_at = "", time.monotonic()
        self._client = await connect(
            self._settings, Handlers(on_error, on_lost, on_lost), SystemClock(), JetStreamLimits()
        )
        jetstream = self._api.context(self._client, API_SECONDS)
        try:
            if self._next is None:
                self._next = await self._end(jetstream)
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._next,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=INACTIVE_SECONDS,
            )
            self._consumer = await jetstream.pull_subscribe(self._subject, stream=self._stream, config=config)
        except NotFoundError:
            raise Refused(
                f"stream {self._stream} does not exist", "check BRIDGE_NATS_STREAM, and that the bridge has run"
            ) from None
        except ServiceUnavailableError as error:
            raise NotConnected(f"JetStream is not ready: {error.description or 'is it enabled?'}") from None
        except APIError as error:
            raise Refused(
                f"stream {self._stream} cannot be read: {error.description} (error {error.err_code})"
            ) from None
        except NoAnswer:
            raise self._unanswered() from None
        except Error as error:
            raise NotConnected(f"NATS: {error}") from None

    async def read(self) -> list[Arrival]:
        """See `Reader`."""
        if self._consumer is None or self._lost:
            raise NotConnected(self._lost or "not open")
        try:
            messages = await self._consumer.fetch(FETCH, timeout=FETCH_SECONDS)
        except TimeoutError:
            messages = []
        except Error as error:
            raise NotConnected(f"the consumer was lost: {error}") from None
        if not messages:
            await self._look(self._consumer)
            return []
        self._heard_at = time.monotonic()
        self._next = messages[-1].metadata.sequence.stream + 1
        found = map(_arrival, messages)
        return [arrival for arrival in found if arrival is not None]

    async def close(self) -> None:
        """See `Reader`."""
        client, consumer = self._client, self._consumer
        self._client = self._consumer = None
        if client is None:
            return
        if consumer is not None and client.is_connected:
            with suppress(Error, TimeoutError):
                name = (await consumer.consumer_info()).name
                await self._api.context(client, API_SECONDS).delete_consumer(self._stream, name)
        await discard(client, SystemClock(), JetStreamLimits().close)

    async def _end(self, jetstream: JetStreamContext) -> int:
        """The sequence number of what will be stored next."""
        info = await jetstream.stream_info(self._stream)
        if info.config.subject_transform is not None:  # stored under other subjects: keys are told by their names
            self._subject = ALL
        if info.config.retention == RetentionPolicy.WORK_QUEUE:
            raise Refused(
                f"stream {self._stream} is a work queue: what is read here would be taken from its consumers",
                "read back from another stream (BRIDGE_NATS_STREAM), one that sources it for instance",
            )
        return info.state.last_seq + 1

    async def _look(self, consumer: JetStreamContext.PullSubscription) -> None:
        if time.monotonic() - self._heard_at < SILENCE_SECONDS:
            return
        try:
            await consumer.consumer_info()
        except (Error, TimeoutError) as error:
            raise NotConnected(f"the consumer was lost: {error}") from None
        self._heard_at = time.monotonic()

    def _unanswered(self) -> Refused | NotConnected:
        if self._lost.startswith("nats: permissions"):
            return Refused(
                f"the NATS user may not read stream {self._stream} ({self._lost})",
                f"allow it to publish to {self._api.subject('>')} and to subscribe to _INBOX.>,"
                " or use another user (BRIDGE_NATS_USER)",
                ErrorKind.DENIED,
            )
        return NotConnected("NATS does not answer the JetStream API")


def covering(one: str, other: str) -> str:
    """The subject, with a `*` for each token in which they differ, that covers two subjects of as many tokens."""
    pairs = zip(one.split("."), other.split("."), strict=True)
    return ".".join(left if left == right else "*" for left, right in pairs)


def attributes_of(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The CloudEvents attributes among the headers of a message."""
    return {
        name.removeprefix(ATTRIBUTE_PREFIX): value
        for name, value in (headers or {}).items()
        if name.startswith(ATTRIBUTE_PREFIX)
    }


def _arrival(message: Msg) -> Arrival | None:
    return read_event(message.data, attributes_of(message.headers), message.metadata.timestamp.timestamp() * 1000)
