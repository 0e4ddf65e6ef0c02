"""Structured logs: JSON lines for machines, columns for a terminal. Nothing here ever holds a secret.

Lines at INFO and above hold no user keys (they may be personal data). What client libraries log is a line of the same
form.

Logging never waits: a thread does the writing. Lines wait for a slow reader in bounded room; lines without room are
dropped and counted. Not guaranteed: that the last lines are read, if their reader stands still when the process ends.
"""

import atexit
import logging
import os
import select
import sys
import threading
from collections import deque
from typing import Literal, TextIO

from bridge.telemetry.structured import structlog

Format = Literal["console", "json"]

ROOM_BYTES = 1 << 20
"""Lines that wait for their reader."""
END_SECONDS = 1.0
"""For their reader, when the process ends."""


class Writer:
    """Writes lines to a file descriptor, in order. A daemon thread: a full pipe must not keep the process from ending.

    A stream without one, as in tests, never blocks, and is written to at once.
    """

    def __init__(self, stream: TextIO, room: int | None = None) -> None:
        self.dropped = 0
        """Lines, so far."""
        self.stream = stream
        self._room = ROOM_BYTES if room is None else room
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._unreported = 0
        self._thread: threading.Thread | None = None
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError):  # io.UnsupportedOperation is both
            self._fd = None

    def write(self, line: str) -> int:
        """Take a line; it is dropped if there is no room. How many were dropped since the last line taken."""
        if self._fd is None:
            self.stream.write(line)
            return 0
        data = line.encode(errors="backslashreplace")
        with self._changed:
            if len(data) > self._room:
                self.dropped += 1
                self._unreported += 1
                return 0
            self._room -= len(data)
            self._lines.append(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=[self._fd], name="logs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            unreported, self._unreported = self._unreported, 0
            return unreported

    def flush(self, seconds: float) -> bool:
        """Wait until all lines are written, for at most that many seconds. Returns whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines, seconds)

    def _run(self, fd: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                data = self._lines[0]
            written = _written(fd, data)
            with self._changed:
                self._lines.popleft()
                self._room += len(data)
                self.dropped += not written
                self._changed.notify_all()


def _written(fd: int, data: bytes) -> bool:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # another process that shares the descriptor made it non-blocking
            select.select([], [fd], [])
        except OSError:  # its reader has gone, or the disk is full: there is no place left to say so
            return False
    return True


_writer = Writer(sys.stderr)


def configure(level: str, chosen: Format | None) -> None:
    """Send log lines of `level` and above to stderr (stdout belongs to the stdout sink).

    `chosen` None: `console` where stderr is a terminal, else `json`.
    """
    global _writer  # noqa: PLW0603 - a process has one stderr, as structlog has one configuration
    if _writer.stream is not sys.stderr:
        _writer = Writer(sys.stderr)
    terminal = sys.stderr.isatty()
    console = chosen == "console" or (chosen is None and terminal)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal and colors_wanted())
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=False,
    )
    # Client libraries log what we report ourselves, less clearly; only their errors are worth a line.
    logging.basicConfig(handlers=[_Libraries()], level=logging.ERROR, force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def colors_wanted() -> bool:
    """What the environment says about colors (no-color.org); also false for a terminal without colors."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def flush(seconds: float = END_SECONDS) -> bool:
    """Wait for the reader of the lines, at most that long. Returns whether all are written. Call it at the end."""
    return _writer.flush(seconds)


atexit.register(flush)


def dropped() -> int:
    """How many lines were dropped, because their reader was too slow or has gone."""
    return _writer.dropped


class _Lines:
    """Where structlog writes a rendered line."""

    def msg(self, line: str) -> None:
        if lost := _writer.write(line + "\n"):
            lines_dropped(lost)

    debug = info = warning = error = critical = msg


class _Libraries(logging.Handler):
    """Makes what client libraries log a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit: logging itself would print a traceback
            message = str(record.msg)
        library_failed(record.name, message, record.exc_info[1] if record.exc_info else None)


def failed(error: BaseException) -> None:
    """The process ends because of an unexpected error: the traceback goes along."""
    structlog.get_logger().error("bridge.failed", error=str(error) or type(error).__name__, exc_info=error)


def refused(problem: str) -> None:
    """The process ends, or does not even start: `problem` says why, and how to fix that."""
    structlog.get_logger().error("bridge.refused", problem=problem)


def secret_exposed(variable: str) -> None:
    """A URL given as a flag holds a password, which every user of the machine can read: set the variable instead."""
    structlog.get_logger().warning("secret.exposed", variable=variable)


def library_failed(library: str, message: str, error: BaseException | None) -> None:
    """An error that only a library logs, in its words."""
    structlog.get_logger().error("library.failed", library=library, message=message, exc_info=error)


def lines_dropped(count: int) -> None:
    """Lines before this one were dropped, because their reader was too slow."""
    structlog.get_logger().warning("log.lines_dropped", count=count)
