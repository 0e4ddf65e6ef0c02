"""A bare timer and a loopback echo, one after the other, until SIGTERM: says the p99 of both together, in ms."""

import os
import signal
import socket
import time
from types import FrameType
from typing import Final

from tests.bench.figures import percentile
from tests.bench.spoken import READY, say

PAUSE_SECONDS: Final = 0.005


class Control:
    """See the module."""

    def __init__(self) -> None:
        self._stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def measure(self) -> float:
        """The p99 of how late the timer was, plus what the echo took."""
        took = []
        with _echo() as connection:
            say(READY)
            while not self._stopped:
                begun = time.perf_counter()
                time.sleep(PAUSE_SECONDS)
                connection.sendall(b"?")
                connection.recv(1)
                took.append((time.perf_counter() - begun - PAUSE_SECONDS) * 1000)
        return percentile(took, 99)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped = True


def _echo() -> socket.socket:
    """A connection to a process that sends back what it gets. That ends with the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with server.accept()[0] as connection:
                while got := connection.recv(1):
                    connection.sendall(got)
            os._exit(0)
        return socket.create_connection(server.getsockname())


if __name__ == "__main__":
    say(Control().measure())
