"""Where one frame of a protocol ends and the next one begins, and what a frame of Redis's says."""

from collections.abc import Callable, Iterator
from enum import Enum, auto

import hiredis


class Protocol(Enum):
    """What is spoken: it decides what a frame is."""

    RAW = auto()
    """Anything, TLS included."""
    RESP = auto()
    """Redis: the n-th reply is that of the n-th command, as long as the connection does not subscribe."""
    NATS = auto()
    """A "reply" is the next frame that comes back. To be exact, break on the ack itself (an `MSG` TO_CLIENT)."""


Matches = Callable[[bytes], bool]


def command(name: bytes, where: Callable[[list[bytes]], bool] = lambda _: True) -> Matches:
    """Match a Redis command by its name, in any case, and by its arguments (the name is the first)."""
    return lambda frame: (arguments := resp_arguments(frame))[:1] == [name.upper()] and where(arguments)


class Framer:
    """Cuts a stream of bytes into frames."""

    def __init__(self, protocol: Protocol) -> None:
        self._end = {Protocol.RAW: _raw_end, Protocol.RESP: _resp_end, Protocol.NATS: _nats_end}[protocol]
        self._data = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The frames that are complete now; to be used up before the next call."""
        data, start = self._data + chunk, 0
        while start < len(data) and (end := self._end(data, start)) is not None and end <= len(data):
            yield data[start:end]
            start = end
        self._data = data[start:]


def resp_arguments(frame: bytes) -> list[bytes]:
    """A Redis command, its name in upper case."""
    if not frame.startswith(b"*"):  # an inline command, as typed by a human
        name, *arguments = frame.split() or [b""]
    else:
        reader = hiredis.Reader()
        reader.feed(frame)
        name, *arguments = reader.gets()
    return [name.upper(), *arguments]


def _raw_end(data: bytes, _start: int) -> int:
    return len(data)


def _resp_end(data: bytes, start: int) -> int | None:
    """Where the RESP value ends (perhaps beyond the data), None if that cannot be told yet."""
    missing = 1
    while missing:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        kind, rest = data[start : start + 1], data[start + 1 : line_end]
        missing -= 1
        start = line_end + 2
        if kind in b"$=!" and rest != b"-1":
            start += int(rest) + 2
        elif kind in b"*~>":
            missing += max(int(rest), 0)
        elif kind in b"%|":
            missing += 2 * int(rest) + (kind == b"|")  # an attribute precedes the value that it is about
    return start


def _nats_end(data: bytes, start: int) -> int | None:
    """Where the protocol line, with its payload, ends (perhaps beyond the data), None if that cannot be told yet."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    words = data[start:line_end].split()
    payload = words and words[0].upper() in {b"PUB", b"HPUB", b"MSG", b"HMSG"}
    return line_end + 2 + (int(words[-1]) + 2 if payload else 0)
