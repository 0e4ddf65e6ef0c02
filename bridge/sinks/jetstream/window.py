"""The messages that are on their way: sent on one connection, not answered yet.

A message whose ack does not come is sent again under the same id; no ack comes too late. When that is, no clock could
say: a stream may be slow, or without a leader for minutes, and what was sent to a dead leader is gone. But a stream
acks in the order in which it receives. So what was *overtaken* is lost, and is sent again at once: something that was
sent later is acked. While nothing is acked at all, a single message is sent again every now and then, to find out. Such
a copy has a reply subject of its own, `<inbox>.<number>-<sending>`, so that an ack says which sending it is of.

A message that the server would close the connection on is not sent, but rejected.
"""

import asyncio
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg
from nats.errors import Error

from bridge.contracts import Message, Receipts
from bridge.errors import BridgeError
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.flight import Flight
from bridge.sinks.jetstream.headers import headers_of, size
from bridge.sinks.jetstream.replies import Meaning, read
from bridge.sinks.jetstream.stream import Stream
from bridge.sinks.jetstream.wire import Wire, frame
from bridge.sinks.subjects import MAX_SUBJECT_BYTES

PROBES = 4
"""Batches of which a message is sent again in one tick, to find out whether acks come: some may never get any."""
MESSAGE_BYTES = 512
"""What a message counts for beyond its body: small ones cost time, too."""

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
        self._once = context.once
        self._denials = denials
        self._clock = context.clock
        self._events = context.events
        self._limits = context.limits
        self._lost = lost
        self._waiting: dict[int, Flight] = {}
        """By number: the messages that were sent, and have no answer."""
        self._flights: set[Flight] = set()
        self._next = 0
        self._sending = 0
        """How often something was sent: some messages in one write."""
        self._acked = 0
        """The last sending of which anything is acked."""
        self._acked_before = 0
        """The same at the last tick: an ack that did not come in one piece may be a moment behind others."""

    async def publish(self, batch: Sequence[Message], receipts: Receipts, stream: Stream) -> None:
        """Return when every message has its receipt; the first ones come while others are without an answer.

        `stream` is asked about answers that are not clear. Raises what `abandon` was given, after the receipts known by
        then.
        """
        flight = Flight(batch, self._next, self._clock.monotonic())
        self._next += len(batch)
        self._flights.add(flight)
        try:
            await self._send(flight)
            while True:
                await flight.news.wait()
                flight.news.clear()
                if flight.unclear and flight.error is None:
                    await self._look_into(flight, stream)
                flight.give(receipts, self._waiting)
                if flight.over and not flight.unclear:
                    break
                if flight.error is not None:
                    break
        finally:
            self._flights.discard(flight)
            for index in self._unanswered(flight) if flight.remaining else ():
                del self._waiting[flight.first + index]
        if flight.error is not None:
            raise flight.error

    def abandon(self, error: Callable[[], BridgeError]) -> None:
        """The connection is gone: all batches under way end, each with an error of its own."""
        for flight in self._flights:
            flight.end(error())

    async def _look_into(self, flight: Flight, stream: Stream) -> None:
        """What became of those whose answers are not clear."""
        unrouted, taken = list(flight.unrouted), list(flight.taken)
        if unrouted:
            never, why = await stream.route(self._subjects(flight, unrouted))
            flight.rejected |= never
            flight.refused |= {index: why for index in unrouted if index not in never}
            del flight.unrouted[: len(unrouted)]
        if taken:
            sending = flight.taken_sending
            missing = await stream.missing(self._subjects(flight, taken))
            if len(missing) < len(taken):  # it is stored, and its ack was lost
                self._acked = max(self._acked, sending)
            flight.refused |= missing
            del flight.taken[: len(taken)]
        if flight.over and flight.unclear:
            flight.news.set()

    def _subjects(self, flight: Flight, indices: Sequence[int]) -> dict[int, str]:
        return {index: self._subject_of(flight.messages[index]) for index in indices}

    def on_acks(self, numbers: Sequence[bytes]) -> None:
        """The stream has these messages. This is the hot path."""
        waiting, last = self._waiting, None
        for number in map(int, numbers):
            flight = waiting.pop(number, None)
            if flight is not None:  # else it is the second ack of one that was sent twice, or its batch was given up
                flight.answered()
                last = flight
        if last is not None:
            self._acked = max(self._acked, last.first_sending)

    async def on_reply(self, reply: Msg) -> None:
        """Something else came to the inbox, or an ack that did not come in one piece."""
        token, _, copy = reply.subject[len(self._inbox) :].partition("-")
        number = int(token) if token.isdecimal() else -1
        flight = self._waiting.get(number)
        if flight is None:
            return
        answer = read(reply)
        if answer.meaning is Meaning.NONE:
            return
        del self._waiting[number]
        index = number - flight.first
        sending = min(int(copy), self._sending) if copy.isdecimal() else flight.first_sending
        if answer.meaning is Meaning.ACKED:
            self._acked = max(self._acked, sending)
        elif answer.meaning is Meaning.REJECTED:
            flight.rejected[index] = answer.reason
        elif answer.meaning is Meaning.TAKEN and self._once:
            flight.taken.append(index)
            flight.taken_sending = max(flight.taken_sending, sending)
        elif answer.meaning in {Meaning.POSTPONED, Meaning.TAKEN}:
            flight.refused[index] = answer.reason
        elif answer.meaning is Meaning.UNROUTED:
            flight.unrouted.append(index)
        flight.answered()

    async def watch(self) -> None:
        """Give what is known while some is not, and send again what is lost. As long as the connection."""
        while True:
            await self._clock.tick(self._limits.tick)
            now = self._clock.monotonic()
            acked, self._acked_before = self._acked_before, self._acked
            room, quiet_ones = self._limits.window, list[tuple[float, int, Flight]]()
            for flight in list(self._flights):
                quiet = flight.quiet(now)
                if not flight.remaining or not quiet:
                    continue
                flight.news.set()
                if quiet >= self._limits.denied and self._denials:
                    self._reject_denied(flight)
                if flight.last_sending < acked:
                    if room > 0 and now >= flight.again_at:
                        room -= await self._send_overtaken(flight, now)
                elif quiet >= self._limits.ack:
                    quiet_ones.append((-quiet, flight.first, flight))
            for _, _, flight in sorted(quiet_ones)[:PROBES]:
                await self._send_again(flight, 1, now)

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
                        flight.sent = index + 1
                        flight.reject(index, reason)
                        continue
                waiting[number + index] = flight
                flight.sent = index + 1
                frames.append(frame(subject, f"{inbox}{number + index}", message))
                load += MESSAGE_BYTES + len(message.body)
                if load >= self._limits.yield_bytes:
                    self._sends(flight)
                    await self._client.send(frames)
                    frames.clear()
                    load = 0
                    await self._breathe(flight)
                    if flight.error is not None:  # the connection is gone
                        return
            if frames:
                self._sends(flight)
                await self._client.send(frames)
        except Error as error:  # the library noticed first
            self._lost(str(error))

    def _sends(self, flight: Flight) -> None:
        """A part of it is sent for the first time."""
        self._sending += 1
        flight.first_sending = flight.first_sending or self._sending
        flight.last_sending = self._sending

    async def _breathe(self, flight: Flight) -> None:
        """Let others run; return when there is room for more, or nothing to wait for any more.

        It polls, because the library's buffer tells nobody that it has room; and so it can be cancelled safely.
        """
        await asyncio.sleep(0)
        while flight.error is None and (self._busy() or self._client.pending_data_size > self._limits.unsent_bytes):
            await self._clock.sleep(self._limits.pause)

    def _busy(self) -> bool:
        """Whether so much is without an answer that nothing more may be sent; what is overdue does not count."""
        waiting, most = len(self._waiting), self._limits.window
        return waiting >= most and waiting - sum([one.remaining for one in self._flights if one.overdue]) >= most

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

    async def _send_overtaken(self, flight: Flight, now: float) -> int:
        """Send again all that has no answer; how many messages that are.

        What never gets an answer is overtaken all the time that others are acked: it is sent ever more seldom.
        """
        flight.pause = min(max(2 * flight.pause, self._limits.ack), self._limits.resend_most)
        flight.again_at = now + flight.pause
        return await self._send_again(flight, len(flight.messages), now)

    async def _send_again(self, flight: Flight, most: int, now: float) -> int:
        """The first `most` messages without an answer, as copies; how many they are."""
        unanswered = self._unanswered(flight)
        some = unanswered[:most]
        if not some:  # it still waits for room to send, or has just been answered
            return 0
        self._events.resent(len(some))
        flight.overdue = True
        flight.restart(now)
        self._sending += 1
        sending = self._sending
        if len(some) == len(unanswered):
            flight.last_sending = sending
        frames: list[bytes] = []
        load = 0
        try:
            for index in some:
                message = flight.messages[index]
                reply = f"{self._inbox}{flight.first + index}-{sending}"
                frames.append(frame(self._subject_of(message), reply, message))
                load += MESSAGE_BYTES + len(message.body)
                if load >= self._limits.yield_bytes:
                    await self._client.send(frames)
                    frames.clear()
                    load = 0
                    await asyncio.sleep(0)
            if frames:
                await self._client.send(frames)
        except Error as error:
            self._lost(str(error))
        return len(some)

    def _unanswered(self, flight: Flight) -> list[int]:
        """The messages that were sent and have no answer."""
        return [i for i in range(len(flight.messages)) if flight.first + i in self._waiting]
