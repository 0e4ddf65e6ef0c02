"""Load: commands of one kind over and over, at full speed or at an even pace, in Redis's own protocol.

`set` sets ever new keys, `expire` puts off the deadlines of the same thousand. At full speed, some connections send a
pipeline each and wait for its answer: so it is Redis that is busy, and not this process.
"""

import selectors
import socket
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

from tests.bench.spoken import say, told
from tests.bench.stage import KEY, VALUE

CONNECTIONS: Final = 8
PIPELINE: Final = 16
TICK_SECONDS: Final = 0.001
SLIDING_KEYS: Final = 1_000
TTL_SECONDS: Final = 3_600


class Commands:
    """Batches of commands, and how many bytes answer one."""

    def __init__(self, kind: str, pipeline: int) -> None:
        key = KEY % 0
        words = {"set": ["SET", key, VALUE, "EX", str(TTL_SECONDS)], "expire": ["EXPIRE", key, str(TTL_SECONDS)]}[kind]
        one = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self._template = one.replace(key, KEY).encode() * pipeline
        self._wrap = SLIDING_KEYS if kind == "expire" else 1 << 40
        self._pipeline = pipeline
        self.answer = {"set": b"+OK\r\n", "expire": b":1\r\n"}[kind] * pipeline

    def batches(self) -> Iterator[bytes]:
        """Without end."""
        for first in count(0, self._pipeline):
            yield self._template % tuple(number % self._wrap for number in range(first, first + self._pipeline))


def connected(port: int) -> socket.socket:
    """A connection to Redis."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answered(connection: socket.socket, answer: bytes) -> None:
    """Wait for the whole answer. Raises RuntimeError if it is another one."""
    got = b""
    while len(got) < len(answer):
        got += connection.recv(65536)
    if got != answer:
        raise RuntimeError(f"Redis answers {got[:100]!r}")


def at_full_speed(port: int, kind: str, seconds: float) -> tuple[int, list[float]]:
    """How many commands were answered, and how many ms each pipeline took."""
    commands = Commands(kind, PIPELINE)
    batches, sent, took = commands.batches(), {}, []
    with selectors.DefaultSelector() as selector:
        connections = [connected(port) for _ in range(CONNECTIONS)]
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
            sent[connection] = time.perf_counter()
            connection.sendall(next(batches))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for ready, _ in selector.select():
                connection = ready.data
                answered(connection, commands.answer)
                now = time.perf_counter()
                took.append((now - sent[connection]) * 1000)
                sent[connection] = now
                connection.sendall(next(batches))
        for connection in connections:
            connection.close()
    return len(took) * PIPELINE, took


def at_a_pace(port: int, kind: str, seconds: float, rate: int) -> tuple[int, list[float]]:
    """The same; after a stall it catches up."""
    tick_seconds = max(TICK_SECONDS, 1 / rate)
    each = round(rate * tick_seconds)
    commands = Commands(kind, each)
    ticks, took = round(seconds / tick_seconds), []
    with connected(port) as connection:
        begun = time.perf_counter()
        for tick, batch in zip(range(ticks), commands.batches(), strict=False):
            time.sleep(max(begun + tick * tick_seconds - time.perf_counter(), 0))
            asked = time.perf_counter()
            connection.sendall(batch)
            answered(connection, commands.answer)
            took.append((time.perf_counter() - asked) * 1000)
    return ticks * each, took


def main(port: int, kind: str, seconds: float, rate: int = 0) -> None:
    """Do it, and say how it went. A rate of 0 is full speed."""
    begun, used = time.perf_counter(), time.process_time()
    done, took = at_a_pace(port, kind, seconds, rate) if rate else at_full_speed(port, kind, seconds)
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - used
    p99 = sorted(took)[len(took) * 99 // 100]
    say({"events": done, "rate_per_s": done / elapsed, "p99_ms": p99, "client_cpu_us": cpu / done * 1e6})


if __name__ == "__main__":
    main(**told())
