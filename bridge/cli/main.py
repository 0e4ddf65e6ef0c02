"""The first that runs: what has to be in place before anything else is imported, which takes most of a second.

From here on a signal to `run` ends it, also as process 1 of a container, for which the kernel ignores every signal
without a handler; and no file or socket of ours can become standard input, output or error, whichever of them the
process was started without.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.limits import Limits

_STDOUT, _STDERR = 1, 2


def main(argv: Sequence[str] | None = None, limits: "Limits | None" = None) -> int:
    """Run one subcommand with `argv` (default: the process's arguments); returns the exit status.

    `limits` of the service: the usual ones, unless a test has others.
    """
    arguments = sys.argv[1:] if argv is None else argv
    service = list(arguments[:1]) == ["run"]
    _occupy(os.O_RDONLY if service else os.O_WRONLY)
    if not service or threading.current_thread() is not threading.main_thread():
        return _dispatched(arguments, limits)
    with _ended_by_signals():
        return _dispatched(arguments, limits)


def _dispatched(arguments: Sequence[str], limits: "Limits | None") -> int:
    from bridge.cli.dispatch import dispatch  # noqa: PLC0415 - see the module

    return dispatch(arguments, limits)


def _occupy(output: int) -> None:
    """Open the null device in place of what is closed; standard output with `output`.

    With O_RDONLY, what is written there fails instead of being lost: expirations, above all.
    """
    for fd, mode in enumerate((os.O_RDONLY, output, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free, and so this one
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", encoding="utf-8", closefd=False)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Until the service has handlers of its own, it has nothing to finish: a signal ends the process at once."""
    # `nohup` ignores SIGHUP, and means it.
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, lambda *_: os._exit(0))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
