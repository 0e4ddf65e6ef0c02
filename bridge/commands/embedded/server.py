"""What all servers have in common: a port of their own, and a start that ends when they answer."""

import contextlib
import os
import signal
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Generator, Iterator
from pathlib import Path

from bridge.commands.embedded.process import Process
from bridge.errors import BridgeError

PORTS = range(20_000, 32_000)
BLOCK = 100
"""A process takes ports in blocks of that size. Tests run side by side, and a server that was given a port may not
listen on it yet, or may be down."""
_keepers: list[socket.socket] = []
"""Datagram sockets, bound to the first port of each block that is ours: so no other process takes it, until we end."""

STOP_SECONDS = 5.0
POLL_SECONDS = 0.01


class Unavailable(BridgeError):
    """A server's program is not installed: the message says how to get it."""


class StartFailed(BridgeError):
    """A server ended, or did not answer in time: the message ends with its log."""


def _own_ports() -> Iterator[int]:
    """Ports of blocks that no other process has, and then the same again. None if there is no such block."""
    blocks = [PORTS[first : first + BLOCK] for first in range(0, len(PORTS), BLOCK)]
    start, ours = os.getpid() % len(blocks), list[range]()
    for block in (*blocks[start:], *blocks[:start]):
        keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            keeper.bind(("127.0.0.1", block[0]))
        except OSError:
            keeper.close()
            continue
        _keepers.append(keeper)
        ours.append(block)
        yield from block
    while ours:
        for block in ours:
            yield from block


_ports, _handing_out = _own_ports(), threading.Lock()


def free_port() -> int:
    """A loopback TCP port that nobody has now, and that this function has not given to anybody for long.

    Below the range from which systems take the ports of outgoing connections (32768 and up): so nobody gets it by
    chance while its server is down, and a client that keeps trying to connect cannot end up connected with itself.
    """
    for _ in PORTS:
        with _handing_out:
            port = next(_ports, None)
        if port is None:
            break
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else TIME_WAIT counts as taken
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Unavailable("no free TCP port on 127.0.0.1")


class Server(Process):
    """A process that listens on a loopback port of its own."""

    scheme: str
    start_seconds = 10.0
    """How long it may take to answer: much more than it does."""

    def __init__(self, name: str, port: int | None = None) -> None:
        super().__init__(name)
        self.port = port or free_port()

    @classmethod
    @abstractmethod
    def program(cls) -> Path:
        """The server's program. Raises Unavailable."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves. Asked again and again while it starts; an OSError counts as no."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; return when it answers, else raise StartFailed."""
        with contextlib.closing(self.starting()) as steps:
            for _ in steps:
                time.sleep(POLL_SECONDS)

    def starting(self) -> Generator[None, None, None]:
        """Start it, one step at a time: yields while it does not answer yet, and ends when it does.

        The caller waits a little after each step; one that gives up closes this, and the server. Raises StartFailed.
        """
        super().start()
        deadline = time.monotonic() + self.start_seconds
        while True:
            with contextlib.suppress(OSError):
                if self.answers():
                    return
            if not self.running or time.monotonic() > deadline:
                break
            yield
        seconds = f"{self.start_seconds:g} s"
        what = f"did not answer within {seconds}" if self.running else f"ended with status {self.returncode}"
        self.kill()
        raise StartFailed(f"{self.name} {what}; its log ends with:\n{self.log()}")

    def stop(self) -> None:
        """End it in good order (SIGTERM), or the hard way after some seconds."""
        self.send_signal(signal.SIGTERM)
        self.resume()  # a paused process takes no SIGTERM
        with contextlib.suppress(TimeoutError):
            self.wait(STOP_SECONDS)
        self.kill()

    def restart(self) -> None:
        """Stop and start it, on the same port, with the data that it keeps."""
        if self.running:
            self.stop()
        self.start()

    def _ask(self, question: bytes, bytes_wanted: int) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(question)
            return connection.recv(bytes_wanted)
