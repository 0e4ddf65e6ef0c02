"""One structured CloudEvent per line on standard output, for pipes and for trying things out.

Acked means: the operating system has taken the whole line. That is as durable as whatever is at the other end.
A slow or stopped reader holds up `publish()`, never the event loop: a thread does the writing. In binary content mode,
which a line of text has no headers for, the line is the structured event all the same.

Not guaranteed: that no line is torn. A write that failed half way is ended with a newline before the next one, and its
batch is sent again.
"""

import asyncio
import fcntl
import os
import select
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue

import orjson

from bridge.contracts import Message
from bridge.errors import BridgeError, NotConnected, Refused, Retryable

STDOUT = 1
END_SECONDS = 1.0


class StdoutSink:
    """Writes to one file descriptor. There is no connection, so it is connected from `open()` to `close()`."""

    def __init__(self, fd: int = STDOUT) -> None:
        """`fd` stays open: it is not the sink's own."""
        self._fd = fd
        self._writer: _Writer | None = None

    @property
    def connected(self) -> bool:
        """Whether lines can be written: the sink is open, and the reader has not gone."""
        return self._writer is not None and self._writer.usable

    async def open(self) -> None:
        """Raises NotConnected while a line from before `close()` is still stuck half way in a full pipe.

        Refused: there is no standard output, or none that can be written to.
        """
        if self.connected:
            return
        if not _writable(self._fd):
            raise Refused("standard output is closed, or not open for writing: start the bridge with one, as in `| …`")
        if self._writer is not None and not await self._writer.ended():
            # A second thread would write into the first one's line.
            raise NotConnected("standard output: its reader still holds up the line before")
        self._writer = _Writer(self._fd)

    async def publish(self, batch: Sequence[Message]) -> None:
        """Return when the operating system has taken all lines.

        Raises Refused: the reader has gone, and will not come back. Retryable: the write failed (a full disk, say).
        NotConnected: the sink is not open, or was closed meanwhile.
        """
        if self._writer is None or not self._writer.usable:
            raise NotConnected("standard output: the sink is not open")
        error = await self._writer.write(b"".join(map(_line, batch)))
        if error is not None:
            raise error

    async def close(self) -> None:
        """Returns at once. Batches under way end in NotConnected; a line in a full pipe may still be written later."""
        if self._writer is not None:
            self._writer.stop()


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


class _Writer:
    """A daemon thread that writes jobs in order. A daemon: a full pipe must not keep the process from ending."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[bytes, asyncio.Future[BridgeError | None]] | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[BridgeError | None]] = set()
        self._torn = False
        self.usable = True
        self._ended: asyncio.Future[BridgeError | None] = self._loop.create_future()
        threading.Thread(target=self._run, name="stdout-sink", daemon=True).start()

    async def ended(self) -> bool:
        """Whether the thread has ended, or does so within END_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self._ended)
        return self._ended.done()

    async def write(self, data: bytes) -> BridgeError | None:
        """Return None when all of `data` is written, else what went wrong."""
        done: asyncio.Future[BridgeError | None] = self._loop.create_future()
        self._waiting.add(done)
        self._jobs.put((data, done))
        try:
            return await done
        finally:
            self._waiting.discard(done)

    def stop(self) -> None:
        self.usable = False
        self._jobs.put(None)
        for done in self._waiting:
            _settle(done, NotConnected("standard output: the sink was closed"))

    def _run(self) -> None:
        while job := self._jobs.get():
            data, done = job
            if done.done():  # given up, or the sink was closed: do not begin
                continue
            self._report(done, self._attempt(data))
        self._report(self._ended, None)

    def _report(self, future: asyncio.Future[BridgeError | None], error: BridgeError | None) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, future, error)

    def _attempt(self, data: bytes) -> BridgeError | None:
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
                self._torn = True
        except BrokenPipeError:
            self.usable = False
            return Refused(
                "standard output is closed, because what read it has ended", "start it again, then the bridge"
            )
        except OSError as error:
            return Retryable(f"standard output: {error.strerror}")
        self._torn = False
        return None

    def _write_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                select.select([], [self._fd], [])


def _settle(done: asyncio.Future[BridgeError | None], error: BridgeError | None) -> None:
    if not done.done():
        done.set_result(error)
