"""The messages that are on their way: sent on one connection, not answered yet.

A message whose ack does not come is sent again under the same id, RESENDS times; then it is refused. A message
that the server would close the connection on is not sent, but rejected.
"""

import asyncio
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg
from nats.errors import Error

from bridge.contracts import Message
from bridge.errors import BridgeError
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.flight import Flight
from bridge.sinks.jetstream.headers import headers_of, size
from bridge.sinks.jetstream.replies import Meaning, read
from bridge.sinks.jetstream.wire import Wire, frame

RESENDS = 2
MESSAGE_BYTES = 512
"""What a message counts for beyond its body: small ones cost time, too."""

MAX_SUBJECT_BYTES = 3900
"""The server closes the connection on a protocol line over 4096 bytes; the rest is for the reply subject and sizes."""
HEADER_ROOM = 1024
"""More than the headers of a structured message take."""


class Window:
    """All batches under way on one connection."""

    def __init__(
        self, client: Wire, inbox: str, denials: Denials, lost: Callable[[str], None], context: Context
    ) -> None:
        """`inbox` is the prefix of the reply subjects; `lost` is called if the connection turns out to be gone."""
        self._client = client
        self._inbox = inbox
        self._subject_of = context.subjects.of_message
        self._denials = denials
        self._clock = context.clock
        self._events = context.events
        self._limits = context.limits
        self._lost = lost
        self._waiting: dict[int, Flight] = {}
        """By number: the messages that were sent, and have no answer."""
        self._flights: set[Flight] = set()
        self._next = 0

    async def publish(self, batch: Sequence[Message]) -> Flight:
        """Return when every message has an answer: what it was, is in the flight.

        Raises what `abandon` was given.
        """
        flight = Flight(batch, self._next, self._clock.monotonic())
        self._next += len(batch)
        self._flights.add(flight)
        try:
            await self._send(flight)
            error = await flight.landed
        finally:
            self._flights.discard(flight)
            for index in self._unanswered(flight) if flight.remaining else ():
                del self._waiting[flight.first + index]
        if error is not None:
            raise error
        return flight

    def abandon(self, error: Callable[[], BridgeError]) -> None:
        """The connection is gone: all batches under way end, each with an error of its own."""
        for flight in self._flights:
            flight.end(error())

    def on_acks(self, numbers: Sequence[bytes]) -> None:
        """The stream has these messages. This is the hot path."""
        waiting = self._waiting
        for number in map(int, numbers):
            flight = waiting.pop(number, None)
            if flight is not None:  # else it is the second ack of one that was sent twice, or its batch was given up
                flight.answered()

    async def on_reply(self, reply: Msg) -> None:
        """Something else came to the inbox, or an ack that did not come in one piece."""
        token = reply.subject[len(self._inbox) :]
        number = int(token) if token.isdecimal() else -1
        flight = self._waiting.get(number)
        if flight is None:
            return
        answer = read(reply)
        if answer.meaning is Meaning.NONE:
            return
        del self._waiting[number]
        index = number - flight.first
        if answer.meaning is Meaning.REJECTED:
            flight.rejected[index] = answer.reason
        elif answer.meaning is Meaning.POSTPONED:
            flight.refused[index] = answer.reason
        elif answer.meaning is Meaning.UNROUTED:
            flight.unrouted.append(index)
        flight.answered()

    async def watch(self) -> None:
        """Send again what is not acked in time, and give up in the end. Runs as long as the connection."""
        while True:
            await self._clock.sleep(self._limits.tick)
            now = self._clock.monotonic()
            for flight in list(self._flights):
                quiet = flight.quiet(now)
                if quiet >= self._limits.denied and self._denials:
                    self._reject_denied(flight)
                if quiet >= self._limits.ack and flight.remaining:
                    flight.restart(now)
                    await self._resend(flight)

    async def _send(self, flight: Flight) -> None:
        subject_of, waiting = self._subject_of, self._waiting  # this is the hot path
        inbox, number = self._inbox, flight.first
        roomy = self._client.max_payload - HEADER_ROOM
        frames: list[bytes] = []
        load = 0
        try:
            for index, message in enumerate(flight.messages):
                subject = subject_of(message)
                if len(message.body) > roomy or message.attributes or len(subject) > MAX_SUBJECT_BYTES:
                    reason = self._oversize(subject, message)
                    if reason:
                        flight.reject(index, reason)
                        continue
                waiting[number + index] = flight
                frames.append(frame(subject, f"{inbox}{number + index}", message))
                load += MESSAGE_BYTES + len(message.body)
                if load >= self._limits.yield_bytes:
                    await self._client.send(frames)
                    frames.clear()
                    load = 0
                    await self._breathe(flight)
                    if flight.landed.done():  # the connection is gone
                        return
            if frames:
                await self._client.send(frames)
        except Error as error:  # the library noticed first
            self._lost(str(error))

    async def _breathe(self, flight: Flight) -> None:
        """Let others run; return when there is room for more, or nothing to wait for any more.

        It polls, because the library's buffer tells nobody that it has room; and so it can be cancelled safely.
        """
        await asyncio.sleep(0)
        while not flight.landed.done() and (
            len(self._waiting) >= self._limits.window or self._client.pending_data_size > self._limits.unsent_bytes
        ):
            await self._clock.sleep(self._limits.pause)

    def _oversize(self, subject: str, message: Message) -> str:
        """Why the server would close the connection on this message; empty if it would not."""
        if len(subject.encode()) > MAX_SUBJECT_BYTES:
            return f"the subject would have more than {MAX_SUBJECT_BYTES} bytes, the most that NATS takes"
        total = size(headers_of(message)) + len(message.body)
        limit = self._client.max_payload
        return (
            f"{total} bytes with its headers, and the NATS server takes {limit} (max_payload)" if total > limit else ""
        )

    def _reject_denied(self, flight: Flight) -> None:
        for index in self._unanswered(flight):
            if self._denials.perhaps(self._subject_of(flight.messages[index])):
                del self._waiting[flight.first + index]
                flight.reject(index, "the NATS user may not publish to the message's subject (permissions violation)")

    async def _resend(self, flight: Flight) -> None:
        unanswered = self._unanswered(flight)
        if not unanswered:  # it still waits for room to send
            return
        if flight.resends == RESENDS:
            for index in unanswered:
                del self._waiting[flight.first + index]
                flight.refused[index] = f"sent {RESENDS + 1} times and not acked"
                flight.answered()
            return
        flight.resends += 1
        self._events.resent(len(unanswered))
        try:
            for index in unanswered:
                message = flight.messages[index]
                reply = f"{self._inbox}{flight.first + index}"
                await self._client.send([frame(self._subject_of(message), reply, message)])
        except Error as error:
            self._lost(str(error))

    def _unanswered(self, flight: Flight) -> list[int]:
        """The messages that were sent and have no answer."""
        return [i for i in range(len(flight.messages)) if flight.first + i in self._waiting]
