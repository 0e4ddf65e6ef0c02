"""One structured CloudEvent per line on standard output, for pipes and for trying things out.

Acked means: the operating system has taken the whole line. That is as durable as the program at the other end.
A slow or stopped reader delays `publish()`, never the event loop: a thread does the writing. A line of text has no
headers, so it is the structured event, also in binary content mode.

Not guaranteed: that no line is torn. A write that failed half way is ended with a newline before the next one, and its
batch is sent again.
"""

import asyncio
import fcntl
import os
import select
import threading
from contextlib import suppress
from queue import SimpleQueue

import orjson

from bridge.clock import Clock
from bridge.contracts import Batch, Message, Order, Receipts
from bridge.errors import NotConnected, Refused
from bridge.sinks.session_end import SessionEnd

STDOUT = 1
STUCK_SECONDS = 1.0
"""How long a new session waits for a line of the former one that is stuck in a full pipe."""
GONE = "standard output is closed, because its reader has ended"
GONE_REMEDY = "start it again, then the bridge"


class StdoutSink:
    """Writes to one file descriptor."""

    def __init__(self, clock: Clock, fd: int = STDOUT) -> None:
        """`fd` stays open: it is not the sink's own."""
        self.order = Order.KEY
        self._clock = clock
        self._fd = fd
        self._session: StdoutSession | None = None

    async def connect(self) -> "StdoutSession":
        """Raises NotConnected while a line of the former session is still stuck half way in a full pipe.

        Refused: there is no standard output, or none that can be written to.
        """
        if not _writable(self._fd):
            raise Refused("standard output is closed, or not open for writing: start the bridge with one, as in `| …`")
        if self._session is not None and not await self._session.written(self._clock, STUCK_SECONDS):
            # A second thread would write into the first one's line.
            raise NotConnected("standard output: its reader has not taken the previous line")
        self._session = StdoutSession(self._fd)
        return self._session

    def channel(self, message: Message) -> str:  # noqa: ARG002 - there is only one
        """See `Sink.channel`."""
        return "standard output"


class StdoutSession:
    """A daemon thread that writes jobs in order. A daemon: a full pipe must not keep the process from ending."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[bytes, asyncio.Future[str]] | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[str]] = set()
        self._torn = False
        self._end = SessionEnd()
        self._gone = False
        self._written = asyncio.Event()
        """The thread has ended."""
        threading.Thread(target=self._run, name="stdout-sink", daemon=True).start()

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`. Raises Refused: the reader has gone, and will not come back."""
        self._raise_if_ended()
        done: asyncio.Future[str] = self._loop.create_future()
        self._waiting.add(done)
        self._jobs.put((b"".join(map(_line, batch.messages)), done))
        try:
            problem = await done
        finally:
            done.cancel()  # given up: do not begin
            self._waiting.discard(done)
        if problem:
            self._raise_if_ended()
        indices = range(len(batch.messages))
        if problem:
            receipts.refused(dict.fromkeys(indices, problem))
        else:
            receipts.acked(indices)

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._end.wait()

    async def close(self) -> None:
        """Returns at once. A line in a full pipe may still be written later."""
        self._stop("closed")

    async def written(self, clock: Clock, seconds: float) -> bool:
        """Wait at most that many seconds. Returns whether nothing more will be written."""
        return await clock.wait(self._written, seconds)

    def _stop(self, reason: str) -> None:
        if self._end.set(reason):
            self._jobs.put(None)
            for done in self._waiting:
                _settle(done, reason)

    def _raise_if_ended(self) -> None:
        if self._gone:
            raise Refused(GONE, GONE_REMEDY)
        if self._end.reason is not None:
            raise NotConnected(f"standard output: {self._end.reason}")

    # In the thread.

    def _run(self) -> None:
        while job := self._jobs.get():
            data, done = job
            if done.done():  # given up, or the session has ended: do not begin
                continue
            problem = self._attempt(data)
            with suppress(RuntimeError):  # the event loop is closed: no one waits
                self._loop.call_soon_threadsafe(self._report, done, problem)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._written.set)

    def _attempt(self, data: bytes) -> str:
        """Write; the problem in words, or nothing."""
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
                self._torn = True
        except BrokenPipeError:
            return GONE
        except OSError as error:
            return f"standard output: {error.strerror}"
        self._torn = False
        return ""

    def _write_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                select.select([], [self._fd], [])

    # In the event loop again.

    def _report(self, done: asyncio.Future[str], problem: str) -> None:
        if problem == GONE:
            self._gone = True
            self._stop(GONE)
        _settle(done, problem)


def _writable(fd: int) -> bool:
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _line(message: Message) -> bytes:
    if not message.attributes:
        return message.body + b"\n"
    structured = {**message.attributes, "datacontenttype": message.content_type, "data": orjson.Fragment(message.body)}
    return orjson.dumps(structured) + b"\n"


def _settle(done: asyncio.Future[str], problem: str) -> None:
    if not done.done():
        done.set_result(problem)
