"""One connection's life: batches are published over it until it ends, for a reason, for good.

A session is never repaired. Whatever goes wrong with it (it breaks, a PONG does not come in time, the server
sends an `-ERR`) ends the session: all batches under way end in NotConnected at once, and the sink makes a new one.
So there is one way back to health, and it reads the credentials afresh and checks the stream.
"""

import asyncio

from nats.aio.subscription import Subscription
from nats.errors import Error

from bridge.contracts import Batch, Receipts
from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.sinks.jetstream.api import HERE, Api
from bridge.sinks.jetstream.connect import Handlers, cluster_of, connect, discard
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.stream import Stream
from bridge.sinks.jetstream.window import Window
from bridge.sinks.jetstream.wire import Wire
from bridge.sinks.session_life import SessionLife


class JetStreamSession:
    """One connection to NATS, with the batches under way on it. `start()` it once, `close()` it in any case."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clock = context.clock
        self._limits = context.limits
        self._pong = max(round(context.limits.pong), 1)
        """The client takes whole seconds."""
        self._life = SessionLife("jetstream", "NATS", self._give_back, self._abandon)
        self._api = Api.of(context.settings)
        self._denials = Denials(context.limits.denials, self._api)
        self._subscription: Subscription | None = None
        self._last_error = ""
        self._client: Wire
        self._discarding: asyncio.Task[None]
        self._stream: Stream
        self._window: Window

    async def start(self) -> None:
        """Connect, subscribe to the acks, check or create the stream.

        Raises NotConnected or Refused; then there is nothing left to close.
        """
        handlers = Handlers(self._on_error, self._on_disconnected, self._on_disconnected)
        self._client = await connect(self._context.settings, handlers, self._clock, self._limits)
        try:
            await self._subscribe()
            await self._stream.prepare()
            self._life.raise_if_ended()
        except BaseException as error:
            await self.close()
            if isinstance(error, Error | OSError):
                raise NotConnected(f"the connection to NATS was lost: {self._last_error or error}") from None
            raise
        self._life.watch(self._window.watch(), "acks")
        self._life.watch(self._watch_connection(), "connection")

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`."""
        self._life.raise_if_ended()
        await self._window.publish(batch.messages, receipts, self._stream)

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._life.ended()

    def end(self, reason: str) -> None:
        """End the session: nothing is published any longer, all batches under way end in NotConnected."""
        self._life.end(reason)

    async def close(self) -> None:
        """End it, and return when all is given back: bounded, see `discard`. Never raises."""
        await self._life.close()

    async def _subscribe(self) -> None:
        client, inbox = self._client, f"{self._client.new_inbox()}."
        self._window = Window(client, inbox, self._denials, self._on_lost, self._context)
        alone = self._api.prefix == HERE and cluster_of(client) is None
        self._stream = Stream(self._api.context(client, self._limits.api), self._denials, self._context, alone=alone)
        self._subscription = await client.listen(inbox, self._window.on_acks, self._window.on_reply)
        for _ in range(2):  # the first PING overtakes the SUB, the second does not; a denial comes before its PONG
            await client.rtt(self._pong)
        if self._denials.subscription:
            raise Refused(
                "the NATS user may not subscribe to _INBOX.>, where the acks arrive", "allow it", ErrorKind.DENIED
            )

    async def _watch_connection(self) -> None:
        while True:
            await self._clock.tick(self._limits.ping)
            if not self._client.is_connected:
                return self._on_lost("disconnected")
            try:
                await self._client.rtt(self._pong)
            except Error:
                return self.end(f"the server did not answer a PING within {self._pong} s")

    async def _on_error(self, error: Exception) -> None:
        if not self._denials.note(str(error)):
            self._last_error = str(error)

    async def _on_disconnected(self) -> None:
        self._on_lost("disconnected")

    def _on_lost(self, how: str) -> None:
        """The library said or let on that the connection is gone. The server's own words are the best reason."""
        words = str(self._client.last_error or "")
        if not words or self._denials.note(
            words
        ):  # a denial is no reason, and holds a subject, thus perhaps a user key
            words = self._last_error or how
        self.end(words)

    def _abandon(self) -> None:
        # Not only when the watches have ended: the library is about to reconnect, and would leave that connection open.
        discarding = discard(self._client, self._clock, self._limits.close, self._subscription)
        self._discarding = asyncio.create_task(discarding, name="jetstream-discard")
        if hasattr(self, "_window"):
            self._window.abandon(self._life.ended_error)

    async def _give_back(self) -> None:
        await self._discarding
