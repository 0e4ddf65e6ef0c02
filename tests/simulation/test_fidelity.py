"""The simulated Redis is one, as far as the bridge can see: the same commands, the same replies and notifications.

One random script of commands goes to a real server and to the simulated one, whose clock is set to the real one's
before each. Deadlines are far away or past by some milliseconds, so that it does not matter how long a command takes.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgpack
import pytest
import redis

from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.own_keys import Names
from tests.simulation.redis.server import Server
from tests.simulation.redis.values import Failure
from tests.support.harness.user import LAZY
from tests.support.servers import RedisServer, ValkeyServer

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

COMMANDS = 600
KEYS = [b"a", b"b", b"c", b"d"]
NAMES = Names("expiry-bridge", 0)
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
        self.now_us = 0
        self.heard: list[tuple[bytes, bytes]] = []
        kind = "valkey" if isinstance(real, ValkeyServer) else "redis"
        self.simulated = Server(lambda: self.now_us, random.Random(0), kind=kind)
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
            deadlines = self.simulated.keyspace.databases[0].deadlines.values()
            if not any(-SOON_MS < deadline - now < SOON_MS for deadline in deadlines):
                return now
            time.sleep(SOON_MS / 1000)

    def both(self, *words: bytes | str | int, fences: tuple[int, int] | None = None) -> tuple[object, object]:
        """Do it on both, and compare. The replies."""
        self.now_ms()
        real = self._real(_with(words, fences and fences[0]))
        simulated = self.simulated.user(*_with(words, fences and fences[1]))
        said = f"{words}"
        assert self._masked(real, fences and fences[0]) == self._masked(simulated, fences and fences[1]), said
        assert self.notified() == self.heard, said
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

    def notified(self) -> list[tuple[bytes, bytes]]:
        self.tokens += 1
        token = b"%d" % self.tokens
        self.real.publish("token", token)
        found: list[tuple[bytes, bytes]] = []
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


@pytest.fixture
def pair(redis_kind: type[RedisServer], request: pytest.FixtureRequest) -> object:
    with redis_kind(LAZY) as server, Pair(server, random.Random(request.node.name)) as pair:
        yield pair


def user_command(pair: Pair) -> Words:
    """One of a user's."""
    rng, now = pair.rng, pair.now_ms()
    key, other = rng.choice(KEYS), rng.choice(KEYS)
    deadline = rng.choice([now + FAR_MS, now + FAR_MS + 7, now - 2 * MOMENT_MS, now + NEAR_MS])
    field, score = rng.choice(KEYS), rng.choice([b"1", b"2.5", b"-inf", b"1790000000123"])
    return rng.choice(
        [
            ("SET", key, b"v"), ("SET", key, b"v", "PXAT", deadline), ("SET", key, b"v", "KEEPTTL"),
            ("SET", key, b"v", "NX"), ("SET", key, b"v", "XX", "PXAT", deadline), ("PEXPIREAT", key, deadline),
            ("PEXPIREAT", key, deadline), ("PEXPIRE", key, rng.choice([FAR_MS, -1, 0])), ("EXPIRE", key, 1000),
            ("PERSIST", key), ("DEL", key, other), ("UNLINK", key), ("RENAME", key, other),
            ("COPY", key, other), ("COPY", key, other, "REPLACE"), ("GET", key), ("GETDEL", key),
            ("GETEX", key, "PXAT", deadline), ("GETEX", key, "PERSIST"), ("EXISTS", key, other, key), ("TYPE", key),
            ("PEXPIRETIME", key), ("SETEX", key, 1000, b"v"), ("PSETEX", key, FAR_MS, b"v"), ("SETEX", key, 0, b"v"),
            ("HSET", key, field, b"1", other, b"2"), ("HGET", key, field), ("HMGET", key, field, other),
            ("HDEL", key, field), ("HINCRBY", key, field, 3), ("HEXISTS", key, field), ("ZADD", key, score, field),
            ("ZADD", key, "NX", score, field), ("ZREM", key, field, other), ("ZCARD", key), ("ZSCORE", key, field),
            ("ZMSCORE", key, field, other), ("ZRANGE", key, 0, -1, "WITHSCORES"),
            ("ZRANGE", key, "-inf", "(2.5", "BYSCORE", "LIMIT", 0, 1, "WITHSCORES"), ("ZSCAN", key, 0, "COUNT", 10),
            ("XADD", key, f"{rng.randrange(1, 50)}-{rng.randrange(3)}", field, b"v"), ("XADD", key, "*", field, b"v"),
            ("XLEN", key), ("XRANGE", key, "-", "+"), ("XRANGE", key, "(7-1", "+", "COUNT", 2),
            ("XDEL", key, f"{rng.randrange(1, 50)}-0"), ("SCAN", 0, "COUNT", 1000, "MATCH", "nothing*"), ("DBSIZE",),
            ("CONFIG", "SET", "notify-keyspace-events", rng.choice(["KEA", "Egxe", "Kg$", "Elz", "AKE"])),
            ("CONFIG", "GET", "notify-keyspace-events"), ("FLUSHDB",), ("NONSENSE", key),
        ]
    )  # fmt: skip


def test_the_same_commands_have_the_same_replies_and_notifications(pair: Pair) -> None:
    for _ in range(COMMANDS):
        pair.both(*user_command(pair))
        if pair.rng.random() < 0.05:
            time.sleep(2 * NEAR_MS / 1000)  # what was near is past

    keys = sorted(pair.simulated.keyspace.databases[0].values)
    assert sorted(pair.real.keys()) == keys
    stats = pair.real.info("stats")
    assert stats["expired_keys"] == pair.simulated.keyspace.expired_keys


def test_the_bridges_own_scripts_do_the_same(pair: Pair) -> None:
    sources = {name: script(name) for name in ("acquire", "touch", "apply", "settle", "release", "members", "shards")}
    digests = {name: pair.both("SCRIPT", "LOAD", source)[0] for name, source in sources.items()}
    run = Scripts(pair, digests)
    run.acquire()
    for _ in range(COMMANDS // 4):
        pair.rng.choice([run.user, run.user, run.user, run.touch, run.touch, run.apply, run.apply, run.other])()
        if pair.rng.random() < 0.2:
            time.sleep(2 * NEAR_MS / 1000)


class Scripts:
    """Calls of the bridge's scripts, with arguments as an epoch gives them."""

    def __init__(self, pair: Pair, digests: dict[str, object]) -> None:
        self._pair = pair
        self._digests = digests
        self._fences = (0, 0)
        self._seq = 0
        self._marks = 0

    def user(self) -> None:
        """A user sets, or ends, a key."""
        pair, key = self._pair, self._pair.rng.choice(KEYS)
        now = pair.now_ms()
        pair.both(
            *pair.rng.choice(
                [
                    ("SET", key, b"v", "PXAT", now + NEAR_MS),
                    ("SET", key, b"v", "PXAT", now + FAR_MS),
                    ("DEL", key),
                    ("PERSIST", key),
                    ("GET", key),
                ]
            )
        )

    def acquire(self) -> None:
        """A new fence. Ends are noted from then on, or as before."""
        rng = self._pair.rng
        real, simulated = self._call(
            "acquire",
            [NAMES.lease, NAMES.outbox, NAMES.canary, NAMES.deadlines, self._mark()],
            ["me", 5000, 1, NAMES.alive_prefix, "1", 0, "1", b"{}", rng.choice([0, 600_000])],
            fenced=False,
        )
        assert isinstance(real, list)
        assert isinstance(simulated, list)
        self._fences, self._seq = (int(real[1]), int(simulated[1])), 0

    def touch(self) -> None:
        """Due entries, or all; with the canary, and the counters (which are of no matter here)."""
        mode, order = self._pair.rng.choice(["due", "walk"]), self._pair.rng.choice(["", "look", 100])
        keys = [NAMES.deadlines, NAMES.lease, self._mark(), NAMES.dead, NAMES.canary, NAMES.moved]
        self._call("touch", keys, ["FENCE", mode, 500, 1 << 20, 0, 5000, 0, "", "", 0, order, 0, 0, 0, "", 0, 0])

    def apply(self) -> None:
        """What a touch or notifications may lead to."""
        rng, operations = self._pair.rng, list[object]()
        ledger = self._pair.simulated.user("ZRANGE", NAMES.deadlines, 0, -1, "WITHSCORES")
        assert isinstance(ledger, list)
        for key, score in zip(ledger[::2], ledger[1::2], strict=True):
            if rng.random() < 0.3:
                operations += [b"r", key, score, rng.choice([b"gone", b"alive"]), b"1"]
        for key in KEYS:
            operations += rng.choice([[], [b"x", key], [b"X", key], [b"d", key], [b"f", key]])
        operations += [word for key in KEYS if rng.random() < 0.7 for word in (b"p", key)]
        if rng.random() < 0.3:
            operations += [b"s", b"0", b"250", b"1048576", b"*", b"{expiry-bridge:"]
        self._seq += rng.choice([1, 1, 1, 0])
        keys = [NAMES.deadlines, NAMES.lease, NAMES.outbox, self._mark(), NAMES.moved, NAMES.ended]
        packed = msgpack.packb(operations, use_bin_type=False)
        self._call(
            "apply",
            keys,
            ["FENCE", self._seq, rng.choice([0, self._pair.now_ms()]), 7, packed, 0, "", NAMES.announcements, 3],
        )
        self._pair.both("XRANGE", NAMES.outbox, "-", "+", fences=self._fences)
        self._pair.both("ZRANGE", NAMES.deadlines, 0, -1, "WITHSCORES")
        self._pair.both("ZRANGE", NAMES.ended, 0, -1, "WITHSCORES")

    def other(self) -> None:
        """The lease, the members, what is settled."""
        act: Callable[[], object] = self._pair.rng.choice([self.acquire, self._settle, self._members, self._old])
        act()

    def _settle(self) -> None:
        found: Any = self._pair.simulated.user("XRANGE", NAMES.outbox, "-", "+", "COUNT", 1)
        if found and (entry := found[0][0]).startswith(b"%d-" % self._fences[1]):
            sequence = entry.partition(b"-")[2]
            entries = [b"%d-%b" % (fence, sequence) for fence in self._fences]
            self._pair.now_ms()
            words: Any = ["EVALSHA", self._digests["settle"], 3, NAMES.outbox, NAMES.lease, NAMES.dead]
            settled = [*words, entries[0], 1, 1, 2, "id", "x"]
            real = self._pair.real.execute_command(*settled)  # type: ignore[no-untyped-call]
            assert real == self._pair.simulated.user(*words, entries[1], 1, 1, 2, "id", "x")
            assert self._pair.notified() == self._pair.heard
            self._pair.heard.clear()

    def _members(self) -> None:
        self._call("members", [NAMES.members], [self._pair.rng.choice(["me", "you"]), self._pair.rng.choice([0, 3000])])

    def _old(self) -> None:
        """Of an epoch that is over."""
        self._call("release", [NAMES.lease], [17, 0, "", "", NAMES.announcements, 0])
        self._call("shards", [NAMES.shards, NAMES.lease], [1])

    def _mark(self) -> bytes:
        self._marks += 1
        return NAMES.mark(1, self._marks)

    def _call(
        self, name: str, keys: Sequence[bytes], words: Sequence[object], *, fenced: bool = True
    ) -> tuple[object, object]:
        call = ["EVALSHA", self._digests[name], len(keys), *keys, *words]
        return self._pair.both(*call, fences=self._fences if fenced else None)  # type: ignore[arg-type]
