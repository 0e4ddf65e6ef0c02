"""The simulated Redis is one, as far as the bridge can see: the same commands, the same replies and notifications.

One random script of commands goes to a real server and to the simulated one, whose clock is set to the real one's
before each. Deadlines are far away or past by some milliseconds, so that it does not matter how long a command takes.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import hiredis
import msgpack
import pytest
import redis

from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.own_keys import Names
from tests.simulation.pair import FAR_MS, KEYS, MOMENT_MS, NEAR_MS, Pair, Words
from tests.simulation.redis.tracking import CHANNEL
from tests.support.harness.user import LAZY
from tests.support.kinds import EACH_KIND
from tests.support.servers import Redis8Server, RedisServer, require

pytestmark = pytest.mark.unmeasured

COMMANDS = 600
NAMES = Names("expiry-bridge", 0)
STREAM_WRITES = {"XADD", "XDEL"}
"""Redis 8 says them in another order, which is of no matter: a bridge captures no streams."""
SCRIPT = """local found = {redis.call('PEXPIRETIME', KEYS[1]), redis.call('EXISTS', ARGV[1])}
redis.call('SET', 'mark', '')
redis.call('DEL', 'mark')
return found[2]"""


@pytest.fixture(params=[*EACH_KIND, pytest.param(Redis8Server, id="redis8")])
def pair(request: pytest.FixtureRequest) -> object:
    kind: type[RedisServer] = request.param
    require(kind)
    with kind(LAZY) as server, Pair(server, random.Random(request.node.name)) as pair:
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
            ("APPEND", key, b"w"), ("STRLEN", key), ("HSTRLEN", key, field), ("ZCOUNT", key, "(1", "+inf"),
            ("ZRANK", key, field),
            ("SET", key, b"v", "NX"), ("SET", key, b"v", "XX", "PXAT", deadline), ("PEXPIREAT", key, deadline),
            ("PEXPIREAT", key, deadline), ("PEXPIRE", key, rng.choice([FAR_MS, -1, 0])), ("EXPIRE", key, 1000),
            ("PERSIST", key), ("DEL", key, other), ("UNLINK", key), ("RENAME", key, other),
            ("COPY", key, other), ("COPY", key, other, "REPLACE"), ("GET", key), ("GETDEL", key),
            ("GETEX", key, "PXAT", deadline), ("GETEX", key, "PERSIST"), ("EXISTS", key, other, key), ("TYPE", key),
            ("PEXPIRETIME", key), ("SETEX", key, 1000, b"v"), ("PSETEX", key, FAR_MS, b"v"), ("SETEX", key, 0, b"v"),
            ("HSET", key, field, b"1", other, b"2"), ("HGET", key, field), ("HMGET", key, field, other),
            ("HDEL", key, field), ("HINCRBY", key, field, 3), ("HEXISTS", key, field),
            ("HLEN", key), ("ZADD", key, score, field),
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


def test_what_was_read_is_invalidated_at_the_same_places(pair: Pair) -> None:
    with Reader(pair) as reader:
        for _ in range(COMMANDS // 2):
            pair.rng.choice([reader.read, reader.read, reader.scripted, reader.write])(pair.rng.choice(KEYS))
            while (command := user_command(pair))[0] in STREAM_WRITES:
                pass
            pair.both(*command)
            if pair.rng.random() < 0.1:
                time.sleep(2 * NEAR_MS / 1000)


class Reader:
    """A session that is tracked, on both servers: the subscription of the pair is told."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._real = redis.Redis(port=pair.real_port, protocol=2, single_connection_client=True)
        pair.pubsub.subscribe(CHANNEL)
        [listener] = pair.real.client_list(_type="pubsub")
        simulated = pair.simulated
        self._heard = hiredis.Reader()
        heard = simulated.accept(self._told, lambda: None)
        heard.channels[CHANNEL] = None
        self._session = simulated.accept(lambda _: None, lambda: None)
        self._script = str(pair.real.script_load(SCRIPT))
        pair.both("SCRIPT", "LOAD", SCRIPT)
        for real, listens in ((True, listener["id"]), (False, heard.id)):
            self._do(real, "CLIENT", "TRACKING", "ON", "REDIRECT", listens, "OPTIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()

    def _told(self, data: bytes) -> None:
        self._heard.feed(data)
        _, channel, keys = self._heard.gets()
        self._pair.heard.append((channel, keys))

    def read(self, key: bytes) -> None:
        """It counts, now and then."""
        self._both("TYPE", key)

    def write(self, key: bytes) -> None:
        """What it has read, maybe."""
        self._both("PEXPIREAT", key, self._pair.now_ms() + self._pair.rng.choice([FAR_MS, NEAR_MS]))

    def scripted(self, key: bytes) -> None:
        """A script that reads what it declares, and something else, which may expire; and leaves a mark."""
        self._both("EVALSHA", self._script, 1, key, self._pair.rng.choice(KEYS))

    def _both(self, *words: bytes | str | int) -> None:
        pair = self._pair
        pair.now_ms()
        counts = pair.rng.random() < 0.7
        replies = [
            (self._do(real, "CLIENT", "CACHING", "YES") if counts else None, self._do(real, *words))
            for real in (True, False)
        ]
        assert replies[0] == replies[1], words
        assert pair.notified() == pair.heard, words
        pair.heard.clear()

    def _do(self, real: bool, *words: bytes | str | int) -> object:  # noqa: FBT001 - one of two
        if real:
            connection = self._real.connection
            assert connection is not None
            connection.send_command(*words)  # type: ignore[no-untyped-call]
            return connection.read_response()
        packed = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        [reply] = self._pair.simulated.execute(self._session, packed)
        return reply


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
            ["me", 5000, 1, NAMES.alive_prefix, "1", 0, "1", b"{}", rng.choice([0, 600_000]), NAMES.announcements],
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
            [
                *("FENCE", self._seq, rng.choice([0, self._pair.now_ms()]), 7, packed, 0, "", NAMES.announcements, 3),
                rng.choice([0, 1 << 20]),
            ],
            in_order=b"s" not in operations,
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
            settled = [*words, entries[0], 1, 0, 1, 2, "id", "x"]
            real = self._pair.real.execute_command(*settled)  # type: ignore[no-untyped-call]
            assert real == self._pair.simulated.user(*words, entries[1], 1, 0, 1, 2, "id", "x")
            assert self._pair.notified() == self._pair.heard
            self._pair.heard.clear()

    def _members(self) -> None:
        self._call("members", [NAMES.members], [self._pair.rng.choice(["me", "you"]), self._pair.rng.choice([0, 3000])])

    def _old(self) -> None:
        """Of an epoch that is over."""
        self._call("release", [NAMES.lease], [17, 0, "", ""])
        self._call("shards", [NAMES.shards, NAMES.lease], [1])

    def _mark(self) -> bytes:
        self._marks += 1
        return NAMES.mark(1, self._marks)

    def _call(
        self, name: str, keys: Sequence[bytes], words: Sequence[object], *, fenced: bool = True, in_order: bool = True
    ) -> tuple[object, object]:
        call = ["EVALSHA", self._digests[name], len(keys), *keys, *words]
        fences = self._fences if fenced else None
        return self._pair.both(*call, fences=fences, in_order=in_order)  # type: ignore[arg-type]
