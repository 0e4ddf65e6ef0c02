"""One connection through the proxy, and what a test may do to it."""

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum, auto

from tests.support.proxy.frames import Framer, Matches, Protocol, resp_arguments

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


Where = Callable[["Connection"], bool]


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


class Faults:
    """What a test does to the connections of one proxy, new ones included."""

    def __init__(self, protocol: Protocol, delay: float) -> None:
        self.protocol = protocol
        self.delay = delay
        """Seconds that every read takes, each way."""
        self.late: Callable[[Direction, bytes], float] = lambda *_: 0.0
        """How many seconds later than what follows it a frame is passed on."""
        self._waiting: list[Breakpoint] = []
        """Those that no frame has matched yet."""
        self._matched: list[Breakpoint] = []
        self._stalls: list[Stall] = []

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
        self._waiting.append(breakpoint_)
        return breakpoint_

    def flow(self) -> None:
        """Hold nothing from now on: release all stalls and breakpoints, and forget the breakpoints not yet reached."""
        for stall in self._stalls:
            stall.release()
        for met in self._matched:
            met.release()
        self._matched.clear()
        self._waiting.clear()

    def matching(self, direction: Direction, frame: bytes) -> Breakpoint | None:
        """The breakpoint that has waited for this frame; it waits for no other."""
        for candidate in self._waiting:
            if candidate.direction is direction and candidate.matches(frame):
                self._waiting.remove(candidate)
                self._matched.append(candidate)
                return candidate
        return None

    async def gate(self, connection: "Connection", direction: Direction) -> None:
        """Return when no stall holds that direction of the connection."""
        while stall := self.holding(connection, direction):
            await stall.wait()

    def holding(self, connection: "Connection", direction: Direction) -> Stall | None:
        """A stall that holds that direction of the connection."""
        self._stalls = [stall for stall in self._stalls if not stall.released]
        return next((stall for stall in self._stalls if stall.direction is direction and stall.where(connection)), None)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection:
    """One connection through the proxy."""

    def __init__(self, faults: Faults, task: asyncio.Task[None], source: str, client: Stream, server: Stream) -> None:
        """`task` is the one that runs it."""
        self.source = source
        """The client's address."""
        self.subscriber = False
        """Whether the client has sent a SUBSCRIBE (known only with Protocol.RESP)."""
        self._faults = faults
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
                reset(writer)
            for writer in writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(self, direction: Direction) -> None:
        reader, writer = self._streams[direction]
        framer = Framer(self._faults.protocol)
        end: Callable[[asyncio.StreamWriter], None] = asyncio.StreamWriter.close
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self._faults.delay:
                    await asyncio.sleep(self._faults.delay)
                await self._forward(direction, framer.feed(chunk), writer)
        except OSError:
            end = reset  # a reset is passed on as a reset
        await self._faults.gate(self, direction)
        end(writer)

    async def _forward(self, direction: Direction, frames: Iterator[bytes], writer: asyncio.StreamWriter) -> None:
        for frame in frames:
            if self._faults.holding(self, direction):
                await writer.drain()
                await self._faults.gate(self, direction)
            met = self._meet(direction, frame)
            if met is not None:
                await met.take()
                if met.action is Action.DROP:
                    continue
                if met.action in {Action.CUT, Action.CUT_REPLY}:
                    self.cut()
                    await asyncio.get_running_loop().create_future()  # the cancellation arrives here
            if seconds := self._faults.late(direction, frame):
                asyncio.get_running_loop().call_later(seconds, _write, writer, frame)
            else:
                writer.write(frame)
        await writer.drain()

    def _meet(self, direction: Direction, frame: bytes) -> Breakpoint | None:
        """The breakpoint that this frame, or the frame to which it is the reply, has reached."""
        self._frames[direction] += 1
        number = self._frames[direction]
        if self._faults.protocol is Protocol.RESP and direction is TO_SERVER and not self.subscriber:
            self.subscriber = resp_arguments(frame)[0] in SUBSCRIBE
        if reached := self._replies.pop((direction, number), None):
            return reached
        met = self._faults.matching(direction, frame)
        if met is None:
            return None
        met.frame, met.connection = frame, self
        if not met.action.on_reply:
            return met
        other = direction.opposite
        in_step = self._faults.protocol is Protocol.RESP
        self._replies[other, number if in_step else self._frames[other] + 1] = met
        return None


def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    if not writer.transport.is_closing():
        writer.write(frame)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close it with a RST."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    writer.transport.abort()
