"""Another client of Redis: one GET after the other, until SIGTERM; then it says how long each took."""

import signal
import socket
import time
from types import FrameType
from typing import Final

from tests.bench.spoken import READY, say, told

PAUSE_SECONDS: Final = 0.0005
QUESTION: Final = b"*2\r\n$3\r\nGET\r\n$6\r\ncanary\r\n"
ANSWER: Final = b"$-1\r\n"


class Canary:
    """See the module."""

    def __init__(self) -> None:
        self._stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def ask(self, port: int) -> list[tuple[float, float]]:
        """When each question was asked (Unix time), and how many ms the answer took."""
        found = []
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            say(READY)
            while not self._stopped:
                begun = time.perf_counter()
                connection.sendall(QUESTION)
                if connection.recv(64) != ANSWER:
                    raise RuntimeError("Redis knows the canary's key")
                found.append((time.time(), (time.perf_counter() - begun) * 1000))
                time.sleep(PAUSE_SECONDS)
        return found

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped = True


if __name__ == "__main__":
    say(Canary().ask(**told()))
