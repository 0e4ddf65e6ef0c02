"""The end of a JetStream stream, message by message: no consumer is made."""

import asyncio

from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js.errors import APIError, NotFoundError

from bridge.clock import SystemClock
from bridge.commands.check.nats.client import API_SECONDS, Nats
from bridge.commands.check.nats.remedies import NatsTools
from bridge.commands.readers.arrivals import Arrival, read_event
from bridge.commands.readers.jetstream import attributes_of
from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.connect import Handlers, connect, discard
from bridge.sinks.jetstream.denials import Denials

ROUNDS = 3
"""Messages are fetched by as many as are wanted; so often, if some of them announce no expiration."""


class JetStreamTail:
    """See `Tail`."""

    def __init__(self, settings: Settings, db: int) -> None:
        self._settings = settings
        self._tools = NatsTools.of(settings, db)
        self._nats: Nats | None = None

    async def last(self, limit: int) -> list[Arrival]:
        """See `Tail`."""
        if self._nats is not None and not self._nats.client.is_connected:
            await self.close()
        nats = self._nats or await self._open()
        found: list[Arrival] = []
        try:
            state = (await nats.ask(self._tools.asked[0], nats.jetstream.stream_info(self._tools.stream))).state
            for newest in range(state.last_seq, state.last_seq - ROUNDS * limit, -limit):
                oldest = max(newest - limit, state.first_seq - 1, 0)
                messages = await asyncio.gather(*(self._read(nats, number) for number in range(newest, oldest, -1)))
                found += filter(None, messages)
                if len(found) >= limit:
                    break
        except NotFoundError:
            raise Refused(f"stream {self._tools.stream} does not exist") from None
        except NoAnswer:
            raise self._unanswered(nats) from None
        except APIError as error:
            raise Refused(f"JetStream: {error.description or 'is it enabled?'}") from None
        except Error as error:
            raise NotConnected(f"NATS: {error}") from None
        return found[:limit]

    async def close(self) -> None:
        """See `Tail`."""
        nats, self._nats = self._nats, None
        if nats is not None:
            await discard(nats.client, SystemClock(), JetStreamLimits().close)

    async def _open(self) -> Nats:
        denials = Denials(JetStreamLimits().denials, self._tools.api)

        async def on_error(error: Exception) -> None:
            denials.note(str(error))

        async def on_change() -> None:
            """A connection that is lost shows in the answers that do not come."""

        client = await connect(
            self._settings, Handlers(on_error, on_change, on_change), SystemClock(), JetStreamLimits()
        )
        self._nats = Nats(client, self._tools.api.context(client, API_SECONDS), denials, self._tools)
        return self._nats

    async def _read(self, nats: Nats, number: int) -> Arrival | None:
        stream = self._tools.stream
        try:
            message = await nats.ask(self._question, nats.jetstream.get_msg(stream, number))
        except NotFoundError:  # it was deleted
            return None
        stored_ms = message.time.timestamp() * 1000 if message.time else None
        return read_event(message.data or b"", attributes_of(message.headers), stored_ms)

    @property
    def _question(self) -> str:
        return self._tools.api.subject(f"STREAM.MSG.GET.{self._tools.stream}")

    def _unanswered(self, nats: Nats) -> Refused | NotConnected:
        if not nats.denials:
            return NotConnected("NATS does not answer the JetStream API")
        needed = f"{self._tools.asked[0]} and {self._question}"
        return Refused(
            f"the NATS user may not read stream {self._tools.stream}",
            f"allow it to publish to {needed}",
            ErrorKind.DENIED,
        )
