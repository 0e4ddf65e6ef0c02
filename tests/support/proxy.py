"""A TCP proxy between the bridge and a server, to break the link at a chosen moment.

    async with Proxy(redis.port, Protocol.RESP) as proxy:
        claim = proxy.break_on(TO_SERVER, command(b"XADD"), Action.HOLD_REPLY)
        ...                       # start a bridge that connects to proxy.port
        await claim.reached()     # Redis has executed it, the bridge does not know
        bridge.kill()

It knows where a frame begins and ends (a RESP value; a NATS protocol line with its payload; else whatever one read
returned), and lets through, holds or drops whole frames, each direction of each connection by itself:

* `cut()` resets connections. `refuse()` stops listening, `accept()` listens again, on the same port. Who comes from an
  address that is `barred` is reset at once.
* `stall()` holds all that flows one way: of all connections, or of those chosen (`is_subscriber`, for instance).
* `break_on()` waits for a certain frame, then does something to it, or to its reply.
* `delay` is the time in seconds that every read takes, each way.

Held is held: not even the end of a connection gets past, and nothing more is read, so the sender's buffers fill up as
if its peer stood still. A half-closed connection is closed as a whole. While the server is down, a connection is
accepted and then reset. The proxy lives in the test's event loop: a test that blocks the loop blocks the proxy.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Self

import hiredis

from bridge.commands.embedded import free_port

CHUNK_BYTES = 1 << 16
LINGER_ZERO = struct.pack("ii", 1, 0)  # makes closing a socket send RST instead of FIN
SUBSCRIBE = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")


class Direction(Enum):
    """Which way bytes flow."""

    TO_SERVER = auto()
    TO_CLIENT = auto()

    @property
    def opposite(self) -> "Direction":
        """The other one."""
        return TO_CLIENT if self is TO_SERVER else TO_SERVER


TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


class Protocol(Enum):
    """What is spoken: it decides what a frame is."""

    RAW = auto()
    """Anything, TLS included."""
    RESP = auto()
    """Redis: the n-th reply is that of the n-th command, as long as the connection does not subscribe."""
    NATS = auto()
    """A "reply" is the next frame that comes back. To be exact, break on the ack itself (an `MSG` TO_CLIENT)."""


class Action(Enum):
    """What happens to the frame that a breakpoint waits for."""

    HOLD = auto()
    """It is held, and whatever comes after it, until the breakpoint is released."""
    HOLD_REPLY = auto()
    """It goes through; its reply is held, and whatever comes after that, until the breakpoint is released."""
    DROP = auto()
    """It vanishes; the connection goes on."""
    CUT = auto()
    """It vanishes, and the connection is reset."""
    CUT_REPLY = auto()
    """It goes through; its reply vanishes, and the connection is reset."""

    @property
    def on_reply(self) -> bool:
        """Whether the action waits for the reply."""
        return self in {Action.HOLD_REPLY, Action.CUT_REPLY}


Matches = Callable[[bytes], bool]
Where = Callable[["Connection"], bool]


def command(name: bytes, where: Callable[[list[bytes]], bool] = lambda _: True) -> Matches:
    """Match a Redis command by its name, in any case, and by its arguments (the name is the first)."""
    return lambda frame: (arguments := resp_arguments(frame))[:1] == [name.upper()] and where(arguments)


def is_subscriber(connection: "Connection") -> bool:
    """For `where=`: the connection has sent a SUBSCRIBE, so Redis sends it notifications."""
    return connection.subscriber


def is_commander(connection: "Connection") -> bool:
    """For `where=`: the connection has sent no SUBSCRIBE, so commands go through it."""
    return not connection.subscriber


def everybody(_: "Connection") -> bool:
    """For `where=`: all connections."""
    return True


class Breakpoint:
    """Waits for one frame, on any connection, once. With a `…_REPLY` action it is reached when the reply comes."""

    def __init__(self, direction: Direction, matches: Matches, action: Action) -> None:
        self.direction = direction
        self.matches = matches
        self.action = action
        self.frame = b""
        """The frame that matched."""
        self.connection: Connection | None = None
        """Where it came."""
        self._hit = asyncio.Event()
        self._released = asyncio.Event()

    async def reached(self, timeout: float = 30.0) -> None:
        """Return when the action takes place. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout):
                await self._hit.wait()
        except TimeoutError:
            missing = "the reply to it" if self.frame else "a frame that matches"
            raise TimeoutError(f"{self.action.name} not reached within {timeout} s: {missing} did not come") from None

    def release(self) -> None:
        """Let go what it holds."""
        self._released.set()

    async def take(self) -> None:
        """Called by the connection: it is reached; wait while it holds."""
        self._hit.set()
        if self.action in {Action.HOLD, Action.HOLD_REPLY}:
            await self._released.wait()


class Stall:
    """Holds one direction of the chosen connections, new ones included, until it is released."""

    def __init__(self, direction: Direction, where: Where) -> None:
        self.direction = direction
        self.where = where
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let go what it holds."""
        self._released.set()

    @property
    def released(self) -> bool:
        """Whether it holds nothing any more."""
        return self._released.is_set()

    async def wait(self) -> None:
        """Return when it is released."""
        await self._released.wait()


class Proxy:
    """Listens on a loopback port of its own, which stays the same, and forwards to `127.0.0.1:target`."""

    def __init__(self, target: int, protocol: Protocol = Protocol.RAW, *, delay: float = 0.0) -> None:
        self.target = target
        self.protocol = protocol
        self.delay = delay
        self.port = free_port()
        self.connections: list[Connection] = []
        """The open ones, oldest first."""
        self.breakpoints: list[Breakpoint] = []
        """Those that no frame has matched yet."""
        self.barred: set[str] = set()
        """The addresses of clients that may not connect any more."""
        self._stalls: list[Stall] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the loop

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Stop listening: who connects now is refused. Open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self, where: Where = everybody) -> None:
        """Reset connections, on both sides. What is under way is lost."""
        for connection in filter(where, list(self.connections)):
            connection.cut()

    def stall(self, direction: Direction, where: Where = everybody) -> Stall:
        """Hold what flows that way, from the next frame on, until the stall is released."""
        stall = Stall(direction, where)
        self._stalls.append(stall)
        return stall

    def break_on(self, direction: Direction, matching: bytes | Matches, action: Action) -> Breakpoint:
        """Do something to the next frame that matches: a regular expression (searched for), or a function of it."""
        if isinstance(matching, bytes):
            expression = re.compile(matching, re.DOTALL)
            breakpoint_ = Breakpoint(direction, lambda frame: expression.search(frame) is not None, action)
        else:
            breakpoint_ = Breakpoint(direction, matching, action)
        self.breakpoints.append(breakpoint_)
        return breakpoint_

    def flow(self) -> None:
        """Hold nothing any more: release all stalls and breakpoints, and forget the breakpoints not yet reached."""
        for stall in self._stalls:
            stall.release()
        for connection in self.connections:
            for met in connection.broken:
                met.release()
        self.breakpoints.clear()

    async def gate(self, connection: "Connection", direction: Direction) -> None:
        """Called by the connection: return when no stall holds that direction of it."""
        while stall := self.holding(connection, direction):
            await stall.wait()

    def holding(self, connection: "Connection", direction: Direction) -> Stall | None:
        """Called by the connection: a stall that holds that direction of it."""
        self._stalls = [stall for stall in self._stalls if not stall.released]
        return next((stall for stall in self._stalls if stall.direction is direction and stall.where(connection)), None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        source = writer.get_extra_info("peername")[0]
        if source in self.barred:
            _reset(writer)
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):  # the server is down, or the proxy is being closed
            _reset(writer)
            return
        connection = Connection(self, task, source, (reader, writer), server)
        self.connections.append(connection)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # cut, or the proxy is closed; asyncio would log it
                await connection.run()
        finally:
            self.connections.remove(connection)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, task: asyncio.Task[None], source: str, client: Stream, server: Stream) -> None:
        self.source = source
        """The client's address."""
        self.subscriber = False
        """Whether the client has sent a SUBSCRIBE (known only with Protocol.RESP)."""
        self.broken: list[Breakpoint] = []
        """The breakpoints that a frame of this connection has matched."""
        self._proxy = proxy
        self._task = task
        self._streams = {TO_SERVER: (client[0], server[1]), TO_CLIENT: (server[0], client[1])}
        self._frames: Counter[Direction] = Counter()
        self._replies: dict[tuple[Direction, int], Breakpoint] = {}

    def cut(self) -> None:
        """Reset it, on both sides."""
        self._task.cancel()

    async def run(self) -> None:
        """Forward, both ways, until both ends are closed or it is cut."""
        writers = [writer for _, writer in self._streams.values()]
        try:
            async with asyncio.TaskGroup() as pumps:
                for direction in Direction:
                    pumps.create_task(self._pump(direction), name=f"proxy {direction.name}")
        finally:
            for writer in writers:
                _reset(writer)
            for writer in writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(self, direction: Direction) -> None:
        reader, writer = self._streams[direction]
        framer = Framer(self._proxy.protocol)
        end: Callable[[asyncio.StreamWriter], None] = asyncio.StreamWriter.close
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                await self._forward(direction, framer.feed(chunk), writer)
        except OSError:
            end = _reset  # a reset is passed on as a reset
        await self._proxy.gate(self, direction)
        end(writer)

    async def _forward(self, direction: Direction, frames: Iterator[bytes], writer: asyncio.StreamWriter) -> None:
        for frame in frames:
            if self._proxy.holding(self, direction):
                await writer.drain()
                await self._proxy.gate(self, direction)
            met = self._meet(direction, frame)
            if met is not None:
                await met.take()
                if met.action is Action.DROP:
                    continue
                if met.action in {Action.CUT, Action.CUT_REPLY}:
                    self.cut()
                    await asyncio.get_running_loop().create_future()  # the cancellation arrives here
            writer.write(frame)
        await writer.drain()

    def _meet(self, direction: Direction, frame: bytes) -> Breakpoint | None:
        """The breakpoint that this frame, or the frame to which it is the reply, has reached."""
        self._frames[direction] += 1
        number = self._frames[direction]
        if self._proxy.protocol is Protocol.RESP and direction is TO_SERVER and not self.subscriber:
            self.subscriber = resp_arguments(frame)[0] in SUBSCRIBE
        if reached := self._replies.pop((direction, number), None):
            return reached
        for candidate in self._proxy.breakpoints:
            if candidate.direction is direction and candidate.matches(frame):
                break
        else:
            return None
        self._proxy.breakpoints.remove(candidate)
        self.broken.append(candidate)
        candidate.frame, candidate.connection = frame, self
        if not candidate.action.on_reply:
            return candidate
        other = direction.opposite
        in_step = self._proxy.protocol is Protocol.RESP
        self._replies[other, number if in_step else self._frames[other] + 1] = candidate
        return None


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


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    writer.transport.abort()
