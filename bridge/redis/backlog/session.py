"""A session with Redis that reads a part of its replication stream, as a replica does that was away for a moment.

Guarantees: it asks only for what the server says it still has, with a margin, and says that it can take a
synchronisation without a file: so, should the server begin one all the same, it waits for some seconds before it does,
and the session is over at once. What is received is bounded, as a whole and in each command. No bytes make it raise
anything but Unfillable.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis

from bridge.errors import BridgeError
from bridge.limits import BacklogLimits
from bridge.redis.backlog.effects import Command
from bridge.redis.backlog.journal import Unfillable
from bridge.redis.protocol.anchor import Measured
from bridge.redis.wire.endpoint import CLIENT_NAME, Endpoint
from bridge.redis.wire.errors import connection_failed

_PART = object()
"""What the reader answers where the next reply is not complete."""
_CHUNK = 1 << 16
RIGHT = "the user of Redis lacks +psync"


class Session:
    """Made by `attached`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: BacklogLimits) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._replies = hiredis.Reader(notEnoughData=_PART)
        self._received = 0
        self._part = 0
        """Bytes received behind the last complete reply."""

    def send(self, *words: bytes) -> None:
        """A command, without waiting for its reply."""
        self._writer.write(packed(words))

    async def ask(self, *words: bytes) -> Any:  # noqa: ANN401 - whatever a server may send
        """The reply to a command; an error is one."""
        self.send(*words)
        return await self._next()

    async def require_capability(self) -> None:
        """Say that it needs no file: so, a full synchronisation would begin only later. Raises Unfillable."""
        if await self.ask(b"REPLCONF", b"capa", b"eof") != b"OK":
            raise Unfillable("the user of Redis lacks +replconf")

    async def commands(self) -> AsyncIterator[Command]:
        """Those of the stream, one after the other, without an end."""
        while True:
            command = await self._next()
            if type(command) is not list or set(map(type, command)) != {bytes}:
                raise Unfillable("Redis sent what is no command")
            yield command

    async def _next(self) -> Any:  # noqa: ANN401 - whatever a server may send
        try:
            while (reply := self._replies.gets()) is _PART:
                data = await self._reader.read(_CHUNK)
                if not data:
                    raise Unfillable("Redis closed the connection")
                self._received += len(data)
                self._part += len(data)
                if self._received > self._limits.stream_bytes or self._part > self._limits.command_bytes:
                    raise Unfillable("Redis sent more than there should be")
                self._replies.feed(data)
                await asyncio.sleep(0)  # others have their turn, too, where much is there already
        except (hiredis.ProtocolError, TypeError, MemoryError) as error:
            raise Unfillable("Redis sent what is not its protocol") from error
        self._part = 0
        return reply


def packed(words: Sequence[bytes]) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@asynccontextmanager
async def attached(endpoint: Endpoint, since: Measured, limits: BacklogLimits) -> AsyncIterator[Session]:
    """A session that goes on with the stream from there on. Raises Unfillable."""
    async with opened(endpoint, limits) as session:
        _require_held(since, _fields(await session.ask(b"INFO", b"replication")), limits)
        await session.require_capability()
        answer = await session.ask(b"PSYNC", since.replid.encode(), b"%d" % (since.offset + 1))
        if isinstance(answer, hiredis.ReplyError):
            raise Unfillable(f"{RIGHT}, or Redis does not allow it: {str(answer)[:100]}")
        if type(answer) is not bytes or not answer.startswith(b"CONTINUE"):
            raise Unfillable("Redis does not go on from there")
        yield session


@asynccontextmanager
async def opened(endpoint: Endpoint, limits: BacklogLimits) -> AsyncIterator[Session]:
    """A session that is logged in. Raises Unfillable."""
    try:
        reader, writer = await _connect(endpoint)
    except (OSError, BridgeError) as error:
        raise Unfillable(str(connection_failed(endpoint, error, answered=True))) from error
    session = Session(reader, writer, limits)
    try:
        await _log_in(session, endpoint)
        yield session
    except (OSError, BridgeError) as error:
        raise Unfillable(str(error) or type(error).__name__) from error
    finally:
        writer.transport.abort()


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.path:
        return await asyncio.open_unix_connection(endpoint.path)
    tls = endpoint.ssl_context()
    timeout = endpoint.limits.handshake if tls else None
    return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=tls, ssl_handshake_timeout=timeout)


async def _log_in(session: Session, endpoint: Endpoint) -> None:
    login = await endpoint.current_login()
    if login is not None:
        answer = await session.ask(b"AUTH", *(word.encode() for word in login.arguments))
        if isinstance(answer, hiredis.ReplyError):
            raise Unfillable("Redis refuses the login")
    await session.ask(b"CLIENT", b"SETNAME", CLIENT_NAME.encode())  # for people alone


def _fields(info: object) -> Mapping[str, str]:
    """What INFO says. Raises Unfillable."""
    if type(info) is not bytes:
        raise Unfillable("INFO is refused")
    lines = info.decode("ascii", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _require_held(since: Measured, info: Mapping[str, str], limits: BacklogLimits) -> None:
    """Raise Unfillable unless the server has all of its stream from there on, and goes on to have it for a moment."""
    try:
        active, first, length, size, last = (
            int(info[name])
            for name in (
                "repl_backlog_active",
                "repl_backlog_first_byte_offset",
                "repl_backlog_histlen",
                "repl_backlog_size",
                "master_repl_offset",
            )
        )
        streams = {info["master_replid"]: last, info["master_replid2"]: int(info["second_repl_offset"]) - 1}
    except (KeyError, ValueError) as error:
        raise Unfillable("INFO does not say what Redis has of its stream") from error
    if not active:
        raise Unfillable("Redis keeps no replication backlog: no replica was ever attached")
    if since.replid not in streams:
        raise Unfillable("Redis has begun another stream since")
    if since.offset > streams[since.replid]:
        raise Unfillable("the server has not got so far yet")
    margin = limits.margin_bytes if length >= size else 0
    if since.offset + 1 < first + margin:
        raise Unfillable(f"the replication backlog does not go so far back (it has {length} bytes)")
    if last - since.offset > limits.stream_bytes:
        raise Unfillable(f"the gap is too long: {last - since.offset} bytes of the stream")
