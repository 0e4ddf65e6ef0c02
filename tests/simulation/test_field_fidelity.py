"""Fields of hashes in the simulated Redis: as in `test_fidelity.py`, on the servers that have deadlines of fields."""

import random
import time
from collections.abc import Iterator

import msgpack
import pytest

from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.own_keys import Names
from tests.simulation.pair import FAR_MS, KEYS, MOMENT_MS, NEAR_MS, Pair, Words
from tests.support.harness.user import LAZY
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer, require

pytestmark = pytest.mark.unmeasured

COMMANDS = 600
NAMES = Names("expiry-bridge", 0)
FENCE = 7
HASHES = KEYS[:2]
AT_THE_DEADLINE = """local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
return {deadline, redis.call('HKEYS', 'h'), redis.call('HPEXPIRETIME', 'h', 'FIELDS', 1, 'a'),
  redis.call('HPTTL', 'h', 'FIELDS', 1, 'a'), redis.call('HEXISTS', 'h', 'a'), redis.call('HLEN', 'h')}"""
"""How late it is, and what the server says of a field whose deadline that may be."""


@pytest.fixture(params=[pytest.param(Redis8Server, id="redis8"), pytest.param(ValkeyServer, id="valkey")])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind: type[RedisServer] = request.param
    require(kind)
    with kind(LAZY) as server, Pair(server, random.Random(request.node.name)) as pair:
        yield pair


def user_command(pair: Pair) -> Words:
    """One of a user's, on hashes."""
    rng, now = pair.rng, pair.now_ms()
    key, other = rng.choice(HASHES), rng.choice(HASHES)
    field, second = rng.choice(KEYS), rng.choice(KEYS)
    deadline = rng.choice([now + FAR_MS, now + FAR_MS + 7, now + NEAR_MS, now + NEAR_MS, now - 2 * MOMENT_MS])
    two = ("FIELDS", 2, field, second)
    return rng.choice(
        [
            ("HSET", key, field, b"1"), ("HSET", key, field, b"1", second, b"2"), ("HSET", key, second, b"3"),
            ("HPEXPIREAT", key, deadline, "FIELDS", 1, field), ("HPEXPIREAT", key, deadline, *two),
            ("HPEXPIREAT", key, deadline, *two), ("HPEXPIREAT", key, deadline, "FIELDS", 4, *KEYS),
            ("HPEXPIRE", key, rng.choice([FAR_MS, 0]), "FIELDS", 1, field), ("HEXPIRE", key, 1000, *two),
            ("HPERSIST", key, "FIELDS", 1, field), ("HPERSIST", key, *two), ("HDEL", key, field),
            ("HDEL", key, field, second), ("HINCRBY", key, field, 2), ("HGET", key, field),
            ("HMGET", key, field, second), ("HEXISTS", key, field), ("HSTRLEN", key, field), ("HLEN", key),
            ("HKEYS", key), ("HSCAN", key, 0, "NOVALUES"),
            ("HPEXPIRETIME", key, *two), ("TYPE", key), ("EXISTS", key),
            ("RENAME", key, other), ("DEL", key), ("PEXPIREAT", key, now + rng.choice([FAR_MS, NEAR_MS])),
            ("SET", key, b"v") if rng.random() < 0.2 else ("EXISTS", key), ("SCAN", 0, "COUNT", 1000, "TYPE", "hash"),
        ]
    )  # fmt: skip


def test_the_same_commands_on_fields_have_the_same_replies_and_notifications(pair: Pair) -> None:
    for _ in range(COMMANDS):
        command = user_command(pair)
        pair.both(*command, in_order=command[0] != "SCAN")
        if pair.rng.random() < 0.05:
            time.sleep(2 * NEAR_MS / 1000)  # what was near is past


def test_a_copy_has_the_deadlines_of_the_fields(pair: Pair) -> None:
    now = pair.now_ms()
    pair.both("HSET", "h", "a", "1", "b", "2", "c", "3")
    pair.both("HPEXPIREAT", "h", now + NEAR_MS, "FIELDS", 1, "a")
    pair.both("HPEXPIREAT", "h", now + FAR_MS, "FIELDS", 1, "b")
    time.sleep(2 * NEAR_MS / 1000)
    pair.both("COPY", "h", "copy")

    for command in (("HLEN", "copy"), ("HKEYS", "copy"), ("HPEXPIRETIME", "copy", "FIELDS", 3, "a", "b", "c")):
        pair.both(*command)


def test_the_active_expiry_says_the_same_of_each_hash(pair: Pair) -> None:
    now = pair.now_ms()
    for number, (key, fields) in enumerate([("one", "a"), ("two", "ab"), ("rest", "abc"), ("rest", "d")]):
        for field in fields:
            pair.both("HSET", key, field, "1")
            if number < 3:
                pair.both("HPEXPIREAT", key, now + NEAR_MS, "FIELDS", 1, field)
    time.sleep(2 * NEAR_MS / 1000)
    pair.now_ms()
    while pair.simulated.user("EXISTS", "one", "two") or pair.simulated.user("HLEN", "rest") != 1:
        pair.simulated.cycle(1.0)
    pair.real.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)  # type: ignore[no-untyped-call]
    while pair.real.exists("one", "two") or pair.real.hlen("rest") != 1:
        time.sleep(0.01)

    real, simulated = pair.notified(), pair.heard
    for name in (b"one", b"two", b"rest"):
        assert _once_each(real, name) == _once_each(simulated, name)


def _once_each(heard: list[tuple[bytes, object]], key: bytes) -> list[bytes]:
    """What is said of a key: servers may let fields go one by one, or all at once."""
    return list(dict.fromkeys(channel for channel, said in heard if said == key and channel.startswith(b"__keyevent")))


def test_the_bridges_script_does_the_same(pair: Pair) -> None:
    digest, _ = pair.both("SCRIPT", "LOAD", script("fields"))
    pair.both("HSET", NAMES.lease, "fence", FENCE)
    for sequence in range(1, COMMANDS // 4):
        rng, due = pair.rng, pair.rng.choice([0, 250, 250])
        pair.both(*rewritten) if (rewritten := user_command(pair))[0] != "SCAN" else None
        hints: list[object] = []
        for key in HASHES:
            hints += rng.choice([[], [key, rng.choice([b"k", b"f", b"fe", b"kd", b"kdm", b"m", b""]), False]])
        keys = [NAMES.fields, NAMES.lease, NAMES.outbox, NAMES.mark(FENCE, sequence), NAMES.dead]
        gap, most = rng.choice([0, pair.now_ms()]), rng.choice([500, 500, 3])
        words = [FENCE, sequence, gap, NAMES.field_prefix, most, rng.choice([500, 1]), 1 << 20, due]
        pair.both("EVALSHA", digest, 5, *keys, *words, msgpack.packb(hints, use_bin_type=False))  # type: ignore[arg-type]
        pair.both("XRANGE", NAMES.outbox, "-", "+")
        pair.both("ZRANGE", NAMES.fields, 0, -1, "WITHSCORES")
        pair.both("HMGET", NAMES.lease, "depth", "seq", "fields_ambiguous")
        for key in HASHES:
            pair.both("ZRANGE", NAMES.field_prefix + key, 0, -1, "WITHSCORES")
        if rng.random() < 0.3:
            time.sleep(2 * NEAR_MS / 1000)
    assert pair.simulated.user("XLEN", NAMES.outbox)


def test_a_field_at_its_very_deadline(pair: Pair) -> None:
    digest, _ = pair.both("SCRIPT", "LOAD", AT_THE_DEADLINE)
    seen: dict[int, object] = {}
    while len(seen) < 3:
        pair.real.hset("h", mapping={"a": "1", "kept": "1"})
        deadline = pair.now_ms() + 5
        pair.real.hpexpireat("h", deadline, "a")
        late = -2
        while late < 2:
            late, *said = pair.real.evalsha(digest, 0, deadline)  # type: ignore[arg-type]
            if -1 <= late <= 1:
                seen[late] = said
            if late == 1:
                break

    for late, said in seen.items():
        pair.now_us = 1000 * (deadline - 10)
        pair.simulated.user("HSET", "h", "a", "1", "kept", "1")
        pair.simulated.user("HPEXPIREAT", "h", deadline, "FIELDS", 1, "a")
        pair.now_us = 1000 * (deadline + late)
        simulated = pair.simulated.user("EVALSHA", digest, 0, deadline)  # type: ignore[arg-type]
        assert isinstance(simulated, list)
        assert _plain(simulated[1:]) == _plain(said), late


def _plain(said: object) -> object:
    """Without deadlines, and with names in one order: those of the real server were of several tries."""
    if isinstance(said, list):
        names = sorted(one for one in said if isinstance(one, bytes))
        return names or [_plain(one) for one in said]
    return "deadline" if isinstance(said, int) and said > FAR_MS else said
