"""The client library's hot path, made short: many messages in one command, and acks straight from the bytes.

The library takes 9 to 16 µs of processor time for a message and its ack: it builds headers one by one, takes the
protocol apart with one regular expression after the other, and hands each ack to a task. Here whole frames are sent,
and a run of positive acks is recognized by one expression. All else (connecting, logging in, TLS, WebSocket, any other
message, also an ack that says no) stays the library's. What is used of it here is not public, hence the narrow version
in pyproject.toml.

An ack is JSON, so it has no line break in it. If something comes to the inbox that begins like an ack, and has one, the
connection ends with a protocol error, and another one is made. (Who may send such things could also forge acks.)
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import ConnectionClosedError, OutboundBufferLimitError, ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from bridge.contracts import Message
from bridge.sinks.jetstream.headers import block_of

ACK = rb'\{"stream":"[^"\\\r\n]*+", *+(?:"domain":"[^"\\\r\n]*+", *+)?"seq": ?[1-9]\d*+[^\r\n]*+'
"""A positive ack, as the server writes it. One with the sequence 0 says that nothing is stored: see `replies.py`."""
HELD_BYTES = 512
"""Up to this size a reply to a message waits for its last bytes here, and a larger one, which is no ack, elsewhere."""


def frame(subject: str, reply: str, message: Message) -> bytes:
    """The protocol's bytes for one message. Subject and reply subject must be valid."""
    block, body = block_of(message), message.body
    return f"HPUB {subject} {reply} {len(block)} {len(block) + len(body)}\r\n{block}".encode() + body + b"\r\n"


class TooLargeError(ProtocolError):
    """The server sends a message that is larger than any may be."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._most = most

    def __str__(self) -> str:
        """For the log."""
        return f"the server sent a message of more than {self._most} bytes"


class Wire(Client):
    """A client of the library's."""

    def __init__(self, message_bytes: int) -> None:
        """`message_bytes`: the most that a message of the server may have; with a larger one the connection ends."""
        super().__init__()
        self._acks = _Acks(self, message_bytes)
        self._ps = self._acks

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in one write. Raises what `publish` raises where the connection is gone."""
        if self.is_closed:
            raise ConnectionClosedError
        if not self.is_connected:
            raise OutboundBufferLimitError
        data = b"".join(frames)
        if (writer := self._free_writer()) is not None:
            writer.write(data)
            return
        await self._send_command(data)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def _free_writer(self) -> asyncio.StreamWriter | None:
        """Where there is nothing in front of what is sent: so the library's task, which flushes, need not be woken."""
        transport = self._transport
        if self._pending_data_size or not isinstance(transport, TcpTransport):
            return None
        writer: asyncio.StreamWriter | None = transport._io_writer  # noqa: SLF001 - see above
        return None if writer is None or writer.transport.get_write_buffer_size() else writer

    async def listen(
        self, inbox: str, acked: Callable[[Sequence[bytes]], None], replied: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        """Subscribe to `inbox*`. `acked` gets the rests of the subjects of positive acks, `replied` any other reply."""
        subscription = await self.subscribe(f"{inbox}*", cb=replied, pending_msgs_limit=-1, pending_bytes_limit=-1)
        self._acks.listen(inbox, subscription._id, acked)  # noqa: SLF001 - see above
        return subscription


class _Acks(Parser):
    """Takes the positive acks out of what the server sends, and leaves all else to the library's parser."""

    def __init__(self, client: Client, message_bytes: int) -> None:
        super().__init__(client)
        self._message_bytes = message_bytes
        self._listening = False

    def listen(self, inbox: str, subscription_id: int, acked: Callable[[Sequence[bytes]], None]) -> None:
        """From now on, whatever comes on this subscription may be an ack."""
        subject, line = re.escape(f"MSG {inbox}".encode()), rb" %d (?P<size>\d+)\r\n" % subscription_id
        ack = subject + rb"\d+" + line.replace(b"?P<size>", b"?:") + ACK + rb"\r\n"
        # Not ++: before Python 3.11.5, it does not match all that it should.
        self._run = re.compile(rb"(?:" + ack + rb")+")
        self._token = re.compile(subject + rb"(\d+) ")
        self._line = re.compile(subject + rb"\d+" + line)
        self._acked = acked
        self._listening = True

    async def parse(self, data: bytes = b"") -> None:
        """Called by the library with what was received."""
        if not self._listening or self.state != AWAITING_CONTROL_LINE:
            await self._parse(data)
            return
        received = self.buf
        received += data
        if run := self._run.match(received):
            self._acked(self._token.findall(received, 0, run.end()))
            del received[: run.end()]
        if received and not self._part_of_reply(received):
            await self._parse()

    async def _parse(self, data: bytes = b"") -> None:
        """As the library does, but nothing is gathered that is larger than any message may be."""
        await super().parse(data)
        held = len(self.buf) if self.state == AWAITING_CONTROL_LINE else self.needed
        if held > self._message_bytes:
            self.reset()
            raise TooLargeError(self._message_bytes)

    def _part_of_reply(self, received: bytearray) -> bool:
        """Whether it is the first part of what may be an ack."""
        line = self._line.match(received)
        return line is not None and (size := int(line["size"])) <= HELD_BYTES and len(received) < line.end() + size + 2
