"""What the service reports to systemd (`sd_notify(3)`): that it is up, that its event loop turns, that it is stopping.

Does nothing where nothing listens: without `NOTIFY_SOCKET`, that is without `Type=notify`. Not `/readyz`: a standby is
up, and stays one for as long as the holder lives.
"""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

_MICROSECONDS: Final = 1_000_000
_PINGS: Final = 3
"""Within the time that the watchdog allows: one may be lost, and one be late."""


@contextmanager
def notifying(environ: Mapping[str, str]) -> Iterator[None]:
    """Report READY on entry and STOPPING on exit, and keep the watchdog quiet in between. Needs a running loop.

    Raises OSError where systemd names a socket that does not answer. If that happens later, the loop logs it, and the
    watchdog ends the process.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(0)
        channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        channel.send(b"READY=1")
        watchdog = _Watchdog(channel, int(environ.get("WATCHDOG_USEC", "0")) / _MICROSECONDS / _PINGS)
        try:
            yield
        finally:
            watchdog.stop()
            with suppress(OSError):  # it stops all the same
                channel.send(b"STOPPING=1")


class _Watchdog:
    """Pings from the event loop, so that a loop that hangs is noticed."""

    def __init__(self, channel: socket.socket, interval: float) -> None:
        self._channel = channel
        self._interval = interval
        self._next: asyncio.TimerHandle | None = None
        if interval:
            self._ping()

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _ping(self) -> None:
        with suppress(BlockingIOError):  # systemd is busy; the next ping will do
            self._channel.send(b"WATCHDOG=1")
        self._next = asyncio.get_running_loop().call_later(self._interval, self._ping)
