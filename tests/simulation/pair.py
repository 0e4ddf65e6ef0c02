"""A real server and the simulated one, side by side: the same commands, the same replies and notifications.

The simulated server's clock is set to the real one's before each command. Deadlines are far away or past by some
milliseconds, so that it does not matter how long a command takes.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import redis

from tests.simulation.redis.server import Server
from tests.simulation.redis.values import Failure, Hash
from tests.support.servers import RedisServer

KEYS = [b"a", b"b", b"c", b"d"]
FAR_MS = 1_000_000
SOON_MS = 50
"""A command takes less, also on a busy machine: what is farther away is not past for only one of the two."""
NEAR_MS = 2 * SOON_MS
MOMENT_MS = 60_000
"""Times that are so near are not compared: a test takes less."""
Words = Sequence[bytes | str | int]


class Pair:
    """A real server and a simulated one."""

    def __init__(self, real: RedisServer, rng: random.Random) -> None:
        self.rng = rng
        self.real = redis.Redis(port=real.port, protocol=2)
        self.real_port = real.port
        self.now_us = 0
        self.heard: list[tuple[bytes, object]] = []
        self.simulated = Server(lambda: self.now_us, random.Random(0), kind=real.distribution)
        self.simulated.keyspace.tell = lambda channel, key: self.heard.append((channel, key))
        self.pubsub = self.real.pubsub()  # type: ignore[no-untyped-call]
        self.pubsub.psubscribe("__key*", "token")
        self.tokens = 0
        self.real.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)  # type: ignore[no-untyped-call]
        for flags in ("KEA",):
            self.both("CONFIG", "SET", "notify-keyspace-events", flags)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pubsub.close()
        self.real.close()

    def now_ms(self) -> int:
        """The real server's, which is the simulated one's from now on. No deadline is about to pass then."""
        while True:
            seconds, microseconds = self.real.time()
            self.now_us = seconds * 1_000_000 + microseconds
            now = self.now_us // 1000
            if not any(-SOON_MS < deadline - now < SOON_MS for deadline in self._deadlines()):
                return now
            time.sleep(SOON_MS / 1000)

    def _deadlines(self) -> Iterator[int]:
        database = self.simulated.keyspace.databases[0]
        yield from database.deadlines.values()
        for value in database.values.values():
            if isinstance(value, Hash):
                yield from value.deadlines.values()

    def both(
        self, *words: bytes | str | int, fences: tuple[int, int] | None = None, in_order: bool = True
    ) -> tuple[object, object]:
        """Do it on both, and compare. The replies. A SCAN expires keys in no order of ours."""
        self.now_ms()
        real = self._real(_with(words, fences and fences[0]))
        simulated = self.simulated.user(*_with(words, fences and fences[1]))
        said = f"{words}"
        assert self._masked(real, fences and fences[0]) == self._masked(simulated, fences and fences[1]), said
        notified = self.notified()
        assert notified == self.heard if in_order else Counter(notified) == Counter(self.heard), (
            f"{said}: {notified}, {self.heard}"
        )
        self.heard.clear()
        return real, simulated

    def _real(self, words: Words) -> object:
        connection = self.real.connection_pool.get_connection()
        try:
            connection.send_command(*words)  # type: ignore[no-untyped-call]
            return connection.read_response()
        except redis.ResponseError as error:
            return error
        finally:
            self.real.connection_pool.release(connection)

    def notified(self) -> list[tuple[bytes, object]]:
        self.tokens += 1
        token = b"%d" % self.tokens
        self.real.publish("token", token)
        found: list[tuple[bytes, object]] = []
        while True:
            message = self.pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is None:
                continue
            if message["channel"] == b"token":
                if message["data"] == token:
                    return found
            else:
                found.append((message["channel"], message["data"]))

    def _masked(self, reply: object, fence: int | None) -> object:
        """Without what depends on the very moment."""
        if isinstance(reply, list):
            alike = [self._masked(one, fence) for one in reply]
            return sorted(reply) if reply and all(one in KEYS for one in reply) else alike  # as a Lua table has them
        if isinstance(reply, Failure):
            return _error(reply.text.decode())
        if isinstance(reply, redis.ResponseError):
            return _error(str(reply))
        if isinstance(reply, bytes):
            return self._masked_bytes(bytes(reply), fence)
        return (self._moment(reply) or reply) if isinstance(reply, int) else reply

    def _masked_bytes(self, reply: bytes, fence: int | None) -> bytes:
        head, dash, rest = reply.partition(b"-")
        if not head.isdigit():
            return reply
        shown = b"fence" if fence is not None and head == b"%d" % fence else self._moment(int(head))
        return reply if shown is None else shown + dash + rest

    def _moment(self, number: int) -> bytes | None:
        """What a number means that is a time: the two servers see it some milliseconds apart."""
        ahead_us, ahead = number - self.now_us, number - self.now_us // 1000
        if -MOMENT_MS * 1000 < ahead_us < MOMENT_MS * 1000:
            return b"moment, us"
        if -MOMENT_MS < ahead < MOMENT_MS:
            return b"moment, ms"
        return b"far" if FAR_MS // 2 < ahead < FAR_MS + MOMENT_MS else None


def _error(text: str) -> str:
    """redis-py takes the first word of some errors away."""
    return text.removeprefix("ERR ").removeprefix("NOSCRIPT ").partition(" script: ")[0]


def _with(words: Words, fence: int | None) -> list[bytes | str | int]:
    return [fence if word == "FENCE" and fence is not None else word for word in words]
