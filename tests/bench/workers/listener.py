"""A subscriber that throws away what it hears, until SIGTERM: the least that anybody costs Redis who listens."""

import signal
import socket
import sys
from types import FrameType
from typing import Final

from tests.bench.spoken import READY, say, told

CHANNELS: Final = ("expire", "expired", "del")
READ_BYTES: Final = 1 << 20


def main(port: int) -> None:
    """Subscribe, and read."""
    signal.signal(signal.SIGTERM, _end)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        channels = " ".join(f"__keyevent@0__:{channel}" for channel in CHANNELS)
        connection.sendall(f"SUBSCRIBE {channels}\r\n".encode())
        connection.recv(READ_BYTES)
        say(READY)
        while connection.recv(READ_BYTES):
            pass


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit()


if __name__ == "__main__":
    main(**told())
