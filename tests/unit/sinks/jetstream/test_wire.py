"""The short cut through the NATS client library: the same messages go out, and the same replies come in."""

import asyncio
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, OutboundBufferLimitError, ProtocolError

from bridge.contracts import Message
from bridge.sinks.jetstream.headers import headers_of, size
from bridge.sinks.jetstream.replies import Meaning, read
from bridge.sinks.jetstream.wire import HELD_BYTES, Wire, frame
from tests.support.fuzz import split

INBOX = "_INBOX.a+b."
SID = 3
MOST_BYTES = 1 << 20
ACK = b'{"stream":"EXPIRY", "seq":7}'
STAGED = b'{"stream":"EXPIRY","seq":0,"duplicate":true}'
NOT_ACKS = [STAGED, b'{"error":{"code":503}}', b"", b"{}", b"{" + b" " * HELD_BYTES, b'{"error":\r\n}', b"PONG\r\n"]


class Listening(Wire):
    """Not connected: told what was received, and keeps what the library is told of."""

    def __init__(self) -> None:
        super().__init__(MOST_BYTES)
        self.acked: list[int] = []
        self.told: list[tuple[int, bytes, bytes]] = []
        self.pings = 0
        self._acks.listen(INBOX, SID, self._on_acks)

    def _on_acks(self, numbers: Sequence[bytes]) -> None:
        self.acked += map(int, numbers)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.told.append((sid, bytes(subject), data))

    async def _process_ping(self) -> None:
        self.pings += 1


def message(subject: str, data: bytes, sid: int = SID) -> bytes:
    return b"MSG %b %d %d\r\n%b\r\n" % (subject.encode(), sid, len(data), data)


async def received(chunks: Sequence[bytes]) -> Listening:
    wire = Listening()
    for chunk in chunks:
        await wire._acks.parse(chunk)
    return wire


PARTS = st.one_of(
    st.integers(0, 10**12).map(lambda number: ("ack", number)),
    st.tuples(st.integers(0, 99), st.sampled_from(NOT_ACKS)).map(lambda reply: ("reply", reply)),
    st.sampled_from([("ping", None), ("other sid", None), ("other subject", None)]),
)


def written(part: tuple[str, object]) -> bytes:
    match part:
        case "ack", int(number):
            return message(f"{INBOX}{number}", ACK)
        case "reply", (int(number), bytes(data)):
            return message(f"{INBOX}{number}", data)
        case "other sid", _:
            return message(f"{INBOX}1", ACK, SID + 1)
        case "other subject", _:
            return message("_INBOX.aab.1", ACK)
        case _:
            return b"PING\r\n"


@given(st.lists(PARTS, max_size=30), st.lists(st.integers(0, 10_000), max_size=20))
def test_every_ack_is_heard_once_and_all_else_is_the_librarys(parts: list[tuple[str, object]], cuts: list[int]) -> None:
    wire = asyncio.run(received(split(b"".join(map(written, parts)), cuts)))
    own = re.compile(re.escape(INBOX.encode()) + rb"(\d+)")
    ack, others = [], []  # an ack that comes behind something else goes the library's way: it is heard all the same
    for sid, subject, data in wire.told:
        number = own.fullmatch(subject)
        if sid == SID and number and data == ACK:
            ack.append(int(number[1]))
        else:
            others.append((sid, subject, data))
    assert sorted(wire.acked + ack) == sorted(number for kind, number in parts if kind == "ack")  # type: ignore[type-var]
    assert len(others) == sum(kind not in {"ack", "ping"} for kind, _ in parts)
    assert wire.pings == sum(kind == "ping" for kind, _ in parts)


@pytest.mark.parametrize(
    "ack",
    [
        ACK,
        b'{"stream":"EXPIRY","seq":70,"duplicate":true}',
        b'{"stream":"EXPIRY", "domain":"leaf", "seq":7}',
        b'{"stream":"EXPIRY", "seq":1, "domain":"leaf"}',
    ],
)
def test_acks_alone_never_go_the_librarys_way_however_they_are_split(ack: bytes) -> None:
    stream = b"".join(message(f"{INBOX}{number}", ack) for number in range(3))
    for cut in range(len(stream)):
        wire = asyncio.run(received([stream[:cut], stream[cut:]]))
        assert (wire.acked, wire.told) == ([0, 1, 2], []), cut


def test_an_ack_of_what_is_not_stored_yet_is_none_however_it_is_split() -> None:
    first, staged, last = message(f"{INBOX}0", ACK), message(f"{INBOX}1", STAGED), message(f"{INBOX}2", ACK)
    stream = first + staged + last
    for cut in range(len(stream)):
        wire = asyncio.run(received([stream[:cut], stream[cut:]]))
        told = [data for _, _, data in wire.told]
        assert wire.acked[0] == 0, cut
        assert 1 not in wire.acked, cut
        assert told[0] == STAGED, cut
        assert wire.acked[1:] == [2] or told[1:] == [ACK], cut


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (ACK, Meaning.ACKED),
        (b'{"stream":"EXPIRY","seq":7,"duplicate":true}', Meaning.ACKED),
        (b'{"seq":18446744073709551615,"stream":"EXPIRY"}', Meaning.ACKED),
        (STAGED, Meaning.POSTPONED),
        (b'{"stream":"EXPIRY", "seq":0}', Meaning.POSTPONED),
        (b'{"error":{"code":503,"err_code":10077},"stream":"EXPIRY","seq":0}', Meaning.POSTPONED),
        (b'{"error":{"code":400,"err_code":10054},"stream":"EXPIRY","seq":0}', Meaning.REJECTED),
        (b'{"stream":"EXPIRY"}', Meaning.NONE),
        (b'{"stream":"EXPIRY","seq":-1}', Meaning.NONE),
        (b'{"stream":"EXPIRY","seq":true}', Meaning.NONE),
        (b'{"stream":"EXPIRY","seq":"7"}', Meaning.NONE),
        (b'{"stream":"EXPIRY","seq":7', Meaning.NONE),
    ],
)
def test_only_a_sequence_from_1_is_an_ack(answer: bytes, meaning: Meaning) -> None:
    assert read(Msg(Wire(MOST_BYTES), data=answer)).meaning is meaning


def test_what_is_not_stored_yet_is_told_as_that() -> None:
    assert read(Msg(Wire(MOST_BYTES), data=STAGED)).reason == "the stream has it under way, and has not stored it yet"


def test_a_frame_is_what_the_library_would_send() -> None:
    structured = Message("9f", b"k", b'{"a":1}', "application/cloudevents+json")
    binary = Message("9f", b"k", b"{}", "application/json", {"subject": "ein schlüssel", "source": "/redis"})
    for sent in (structured, binary):
        line, _, rest = frame("expired.0.k", "_INBOX.a.1", sent).partition(b"\r\n")
        headers = size(headers_of(sent))
        assert line.decode() == f"HPUB expired.0.k _INBOX.a.1 {headers} {headers + len(sent.body)}"
        assert rest[headers:] == sent.body + b"\r\n"
        version, *lines = rest[:headers].decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        assert (version, lines) == ("NATS/1.0", [f"{name}: {value}" for name, value in headers_of(sent).items()])


async def test_nothing_is_sent_where_there_is_no_connection() -> None:
    wire = Wire(MOST_BYTES)
    with pytest.raises(OutboundBufferLimitError):
        await wire.send([b"PING\r\n"])
    wire._status = Wire.CLOSED
    with pytest.raises(ConnectionClosedError):
        await wire.send([b"PING\r\n"])


async def test_frames_keep_their_order_whether_the_system_takes_them_at_once_or_not() -> None:
    frames, received = [b"%06d\r\n" % number * 1000 for number in range(400)], bytearray()
    read_on, all_read = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1048576,"headers":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await read_on.wait()  # until then, nothing makes room
        while len(received) < sum(map(len, frames)):
            received.extend(await reader.read(1 << 20))
        all_read.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    async with server:
        wire = Wire(MOST_BYTES)
        await wire.connect(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", allow_reconnect=False)
        for number, one in enumerate(frames):
            await wire.send([one])
            if number % 50 == 0:
                await asyncio.sleep(0)
            if number == len(frames) // 2:
                read_on.set()
        await asyncio.wait_for(all_read.wait(), 30)
        await wire.close()
    assert bytes(received) == b"".join(frames)


@pytest.mark.parametrize("line", [b"MSG any 9 %d\r\n", b"HMSG any 9 12 %d\r\n", b"MSG _INBOX.a.1 3 %d\r\n"])
async def test_a_message_larger_than_any_may_be_ends_the_connection_before_it_is_gathered(line: bytes) -> None:
    wire = Listening()
    with pytest.raises(ProtocolError, match="more than 1048576 bytes"):
        await wire._acks.parse(line % (4 << 30))
    assert not wire._acks.buf


async def test_a_line_without_an_end_is_not_gathered_for_ever() -> None:
    wire = Listening()
    for _ in range(100):
        try:
            await wire._acks.parse(b"x" * 32_768)
        except ProtocolError:
            break
    assert len(wire._acks.buf) <= MOST_BYTES
