"""The journey of an expiration, from whatever command set the deadline to the message in JetStream.

Also the words in which the other integration tests speak: a `World` of real servers and one bridge, what `arrives` in
its stream, and the message contract, computed here a second time from its description.
"""

import json
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from signal import SIGTERM
from typing import Any
from urllib.parse import unquote_to_bytes

import msgpack
import nats
import pytest
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy
from redis.asyncio import Redis

from tests.servers import Bridge, NatsServer, RedisServer, ValkeyServer, require, wait_until

pytestmark = pytest.mark.both_kinds

KINDS = [pytest.param(RedisServer, id="redis7"), pytest.param(ValkeyServer, id="valkey9")]
"""For servers that several tests share; `redis_kind` is for tests that start their own."""
LEDGER, OUTBOX, LEASE, DEAD = (f"{{expiry-bridge:0:0}}:{name}" for name in ("deadlines", "outbox", "lease", "dead"))
LAZY = {"enable-debug-command": "yes"}
"""A Redis in which `be_lazy` works."""
SET_TOGETHER = """
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for i = 3, #ARGV do
  redis.call('SET', ARGV[i], 'v', 'PXAT', deadline)
  if ARGV[2] == '1' then redis.call('ZADD', KEYS[1], deadline, ARGV[i]) end
end
return deadline
"""
"""Sets keys that expire at one moment, and returns it: ledger, milliseconds from now, whether the ledger shall know the
deadlines at once, keys. A bridge on a busy machine might be too late to record them before they are past.
"""
START, NEW = DeliverPolicy.ALL, DeliverPolicy.NEW
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Word = str | bytes | int
Command = tuple[Word, ...]


# Servers.


@dataclass(frozen=True)
class World:
    """A Redis (or Valkey), a NATS server, and a bridge between them."""

    redis: RedisServer
    nats: NatsServer
    bridge: Bridge


def settings_for(redis: RedisServer, nats_server: NatsServer, **more: str) -> dict[str, str]:
    """The BRIDGE_* variables; `more` are further ones, without prefix and in lower case."""
    own = {f"BRIDGE_{name.upper()}": value for name, value in more.items()}
    return {"BRIDGE_REDIS_URL": f"{redis.url}/0", "BRIDGE_NATS_URL": nats_server.url, **own}


@contextmanager
def world(kind: type[RedisServer], config: Mapping[str, str] | None = None, **settings: str) -> Iterator[World]:
    """A world of its own. The bridge may need a moment to be ready."""
    require(kind)
    require(NatsServer)
    with kind(config) as redis, NatsServer() as nats_server, bridged(redis, nats_server, **settings) as bridge:
        yield World(redis, nats_server, bridge)


@contextmanager
def bridged(redis: RedisServer, nats_server: NatsServer, **settings: str) -> Iterator[Bridge]:
    """A bridge that has to drain in the end, unless it was ended before."""
    with Bridge(settings_for(redis, nats_server, **settings)) as bridge:
        yield bridge
        if bridge.running:
            bridge.send_signal(SIGTERM)
            assert bridge.wait(30) == 0, bridge.log()


@asynccontextmanager
async def client(server: RedisServer, db: int = 0) -> AsyncIterator[Redis]:
    """A client of one database."""
    async with Redis(port=server.port, db=db) as redis:
        yield redis


async def run(redis: Redis, *command: Word) -> Any:  # noqa: ANN401 - a reply's shape is its command's
    """Run one command, as it would be typed."""
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def now_ms(redis: Redis) -> int:
    """Redis's clock."""
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def deadline_after(redis: Redis, key: bytes, *commands: Command, atomic: bool = False) -> int:
    """Run `commands` in one go, in a transaction if `atomic`; then the key's deadline."""
    pipeline = redis.pipeline(transaction=atomic)
    for command in (*commands, ("PEXPIRETIME", key)):
        pipeline.execute_command(*command)
    return int((await pipeline.execute())[-1])


async def set_for(redis: Redis, key: bytes, ms: int) -> int:
    """Set a key that lives for `ms` milliseconds; its deadline."""
    return await deadline_after(redis, key, ("SET", key, "v", "PX", ms))


async def recorded(redis: Redis, key: bytes, deadline_ms: int | None, ledger: str = LEDGER) -> None:
    """Return when the ledger holds the key with this deadline; with None, when it does not hold it."""

    async def is_recorded() -> bool:
        return await redis.zscore(ledger, key) == deadline_ms

    await wait_until(is_recorded, f"{key[:100]!r} in the ledger with {deadline_ms}")


async def be_lazy(redis: Redis) -> None:
    """Expire nothing unasked from now on: keys go only when somebody touches them."""
    await run(redis, "DEBUG", "SET-ACTIVE-EXPIRE", 0)


# What arrives.


@dataclass(frozen=True)
class Arrived:
    """An expiration in the stream, of either content mode."""

    subject: str
    headers: Mapping[str, str]
    event: Mapping[str, Any]
    """The CloudEvent, as structured mode writes it."""
    key: bytes
    deadline_ms: int | None

    @classmethod
    def of(cls, message: Msg) -> "Arrived | None":
        """None for what is no expiration."""
        headers, body = dict(message.headers or {}), json.loads(message.data)
        event: dict[str, Any]
        if headers["content-type"] == "application/json":
            marked = {name: value for name, value in headers.items() if name.startswith("ce-")}
            event = {name[3:]: unquote_to_bytes(value).decode() for name, value in marked.items()}
            event |= {"datacontenttype": headers["content-type"], "data": body}
        else:
            assert headers["content-type"] == "application/cloudevents+json"
            event = body
        if event["type"] != "redis.key.expired":
            return None
        data = event["data"]
        key = data["key"].encode() if "key" in data else b64decode(data["key_base64"], validate=True)
        return cls(message.subject, headers, event, key, data["deadline_ms"])

    def keeps_the_contract(self, *, db: int = 0, source: str = "/redis", subject: str | None = None) -> None:
        """Fail unless all of the message is as promised; of an unknown deadline's id only the form can be checked."""
        data, deadline_ms = self.event["data"], self.deadline_ms
        observed_ms, moment_ms = data["observed_ms"], data["observed_ms"] if deadline_ms is None else deadline_ms
        id_ = self.event["id"] if deadline_ms is None else id_of_deadline(self.key, deadline_ms, db, source)
        assert len(id_) == 32
        assert bytes.fromhex(id_)
        assert deadline_ms is None or observed_ms > deadline_ms
        assert data["via"] in {"notification", "sweep"}
        assert self.event == {
            "specversion": "1.0",
            "id": id_,
            "source": source,
            "type": "redis.key.expired",
            **event_subject(self.key),
            "time": (EPOCH + timedelta(milliseconds=moment_ms)).strftime("%Y-%m-%dT%H:%M:%S.")
            + f"{moment_ms % 1000:03}Z",
            "datacontenttype": "application/json",
            "data": {
                "db": db,
                **data_key(self.key),
                "deadline_ms": deadline_ms,
                "observed_ms": observed_ms,
                "via": data["via"],
            },
        }
        assert self.headers["Nats-Msg-Id"] == id_
        assert self.subject == (subject or f"expired.{db}.{token(self.key.partition(b':')[0])}")


def id_of_deadline(key: bytes, deadline_ms: int, db: int = 0, source: str = "/redis") -> str:
    """The id of an expiration whose deadline is known."""
    return _digest(source.encode(), b"%d" % db, key, b"d", b"%d" % deadline_ms)


def id_of_entry(key: bytes, entry: bytes, index: int, db: int = 0, source: str = "/redis") -> str:
    """The id of an expiration whose deadline is unknown: it is by its place in the outbox."""
    return _digest(source.encode(), b"%d" % db, key, b"u", entry, b"%d" % index)


def _digest(*parts: bytes) -> str:
    lengthy = [str(len(part)).encode() + b":" + part + b"," for part in parts]
    return blake2b(b"".join(lengthy), digest_size=16).hexdigest()


def event_subject(key: bytes) -> dict[str, str]:
    """The attribute `subject`: none for the empty key, percent-encoded where a CloudEvents string cannot be the key."""
    text = _text(key)
    if text is None or any(unicodedata.category(char) == "Cc" or _is_non_character(ord(char)) for char in text):
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in key)
    return {"subject": text} if text else {}


def data_key(key: bytes) -> dict[str, str]:
    """The key in `data`."""
    text = _text(key)
    return {"key_base64": b64encode(key).decode()} if text is None else {"key": text}


def token(part: bytes) -> str:
    """A part of a key as a token of a NATS subject."""
    encoded = "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b"%.*>" else f"%{byte:02X}" for byte in part)
    return "%5F" + encoded[1:] if encoded.startswith("_") else encoded or "_"


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _is_non_character(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


@asynccontextmanager
async def arrivals(
    server: NatsServer, since: DeliverPolicy = NEW, *, stream: str = "EXPIRY", url: str | None = None
) -> AsyncIterator[list[Arrived]]:
    """The expirations in the stream, in its order; the list grows as they come. `url` may hold a login."""
    arrived: list[Arrived] = []

    async def take(message: Msg) -> None:
        if expiration := Arrived.of(message):
            arrived.append(expiration)

    connection = await nats.connect(url or server.url)
    try:
        await connection.jetstream().subscribe(">", stream=stream, ordered_consumer=True, cb=take, deliver_policy=since)
        yield arrived
    finally:
        await connection.close()


def told(arrived: Sequence[Arrived], keys: Collection[bytes]) -> dict[bytes, list[int | None]]:
    """The deadlines of which messages tell, in the stream's order, of those of `keys` of which any tells."""
    deadlines: dict[bytes, list[int | None]] = {}
    for message in arrived:
        if message.key in keys:
            deadlines.setdefault(message.key, []).append(message.deadline_ms)
    return deadlines


async def all_of(arrived: Sequence[Arrived], keys: Collection[bytes], count: int = 1) -> None:
    """Return when `count` messages of each of `keys` have arrived."""

    def missing() -> list[bytes]:
        found = told(arrived, keys)
        return [key for key in keys if len(found.get(key, ())) < count]

    await wait_until(lambda: not missing(), lambda: f"messages of {missing()}", timeout=20)


async def everything_due(redis: Redis, arrived: Sequence[Arrived], until_ms: int = 0) -> None:
    """Return when the message of a sentinel has arrived, whose deadline lies behind `until_ms` and behind now."""
    number = await redis.incr("sentinels")
    sentinel = b"sentinel:%d" % number
    deadline_ms = max(until_ms, await now_ms(redis)) + 250
    await run(redis, "SET", sentinel, "v", "PXAT", deadline_ms)
    await all_of(arrived, {sentinel})


# The tests.


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[World]:
    """The tests of this module tell themselves apart by the names of their keys."""
    with world(request.param) as made:
        yield made


def ways(key: bytes, payload: bytes, now: int) -> dict[str, list[Command]]:
    """Commands that give `key` a deadline, soon. Anything later than a minute is one that was not to be taken."""
    soon, later = now + 1200, now + 90_000
    soon_s = now // 1000 + 2
    plain, brief, lasting = ("SET", key, "v"), ("SET", key, "v", "PX", 900), ("SET", key, "v", "PX", 90_000)
    source = key + b":source"
    found: dict[str, list[Command]] = {
        "SET EX": [("SET", key, "v", "EX", 1)],
        "SET PX": [("SET", key, "v", "PX", 900)],
        "SET EXAT": [("SET", key, "v", "EXAT", soon_s)],
        "SET PXAT": [("SET", key, "v", "PXAT", soon)],
        "SET KEEPTTL": [brief, ("SET", key, "w", "KEEPTTL")],
        "SET NX EX GET": [("SET", key, "v", "NX", "GET", "EX", 1)],
        "SET XX PX": [lasting, ("SET", key, "w", "XX", "PX", 900)],
        "SET NX, refused": [brief, ("SET", key, "w", "NX", "EX", 90)],
        "SETEX": [("SETEX", key, 1, "v")],
        "PSETEX": [("PSETEX", key, 900, "v")],
        "GETEX EX": [plain, ("GETEX", key, "EX", 1)],
        "GETEX PX": [plain, ("GETEX", key, "PX", 900)],
        "GETEX EXAT": [lasting, ("GETEX", key, "EXAT", soon_s)],
        "GETEX PXAT": [lasting, ("GETEX", key, "PXAT", soon)],
        "RESTORE": [("RESTORE", key, 900, payload)],
        "RESTORE ABSTTL": [("RESTORE", key, soon, payload, "ABSTTL")],
        "RESTORE REPLACE": [lasting, ("RESTORE", key, 900, payload, "REPLACE")],
        "COPY": [("SET", source, "v", "PXAT", soon), ("COPY", source, key)],
        "COPY REPLACE": [lasting, ("SET", source, "v", "PXAT", soon), ("COPY", source, key, "REPLACE")],
        "RENAME": [("SET", source, "v", "PXAT", soon), ("RENAME", source, key)],
        "RENAME onto another": [lasting, ("SET", source, "v", "PXAT", soon), ("RENAME", source, key)],
        "RENAMENX": [("SET", source, "v", "PXAT", soon), ("RENAMENX", source, key)],
        "Lua": [("EVAL", "return redis.call('SET', KEYS[1], 'v', 'PX', 900)", 1, key)],
        "shortened": [lasting, ("PEXPIRE", key, 60_000), ("PEXPIRE", key, 900)],
        "prolonged": [("SET", key, "v", "PX", 700), ("PEXPIREAT", key, soon)],
        "persisted, then not": [lasting, ("PERSIST", key), ("PEXPIREAT", key, soon)],
        "deleted, then set again": [lasting, ("DEL", key), brief],
        "changed in place": [("SET", key, 1, "PX", 900), ("INCR", key), ("APPEND", key, "0"), ("SETRANGE", key, 0, 7)],
        "a hash": [("HSET", key, "f", "v"), ("PEXPIREAT", key, soon)],
        "a list": [("RPUSH", key, "a", "b"), ("PEXPIREAT", key, soon), ("LPOP", key)],
        "a set": [("SADD", key, "a"), ("PEXPIREAT", key, soon)],
        "a sorted set": [("ZADD", key, 1, "a"), ("PEXPIREAT", key, soon)],
        "a stream": [("XADD", key, "*", "f", "v"), ("PEXPIREAT", key, soon)],
    }
    for command, near, far in (
        ("EXPIRE", 1, 90),
        ("PEXPIRE", 900, 90_000),
        ("EXPIREAT", soon_s, soon_s + 90),
        ("PEXPIREAT", soon, later),
    ):
        found |= {
            command: [plain, (command, key, near)],
            f"{command} NX": [plain, (command, key, near, "NX")],
            f"{command} NX, refused": [brief, (command, key, far, "NX")],
            f"{command} XX": [lasting, (command, key, near, "XX")],
            f"{command} GT": [("SET", key, "v", "PX", 500), (command, key, near, "GT")],
            f"{command} GT, refused": [brief, (command, key, 0, "GT")],
            f"{command} LT": [lasting, (command, key, near, "LT")],
            f"{command} LT, of a key without one": [plain, (command, key, near, "LT")],
            f"{command} LT, refused": [brief, (command, key, far, "LT")],
        }
    return found


def newer_ways(key: bytes) -> dict[str, list[Command]]:
    """What only Valkey 9 knows, of the servers here."""
    return {
        "MSETEX": [("MSETEX", 1, key, "v", "PX", 900)],
        "SET IFEQ": [("SET", key, "v", "PX", 90_000), ("SET", key, "w", "IFEQ", "v", "PX", 900)],
    }


@pytest.mark.parametrize("atomic", [False, True], ids=["one by one", "in MULTI"])
async def test_whatever_command_gives_a_key_its_deadline_the_expiration_arrives_once(
    shared: World, *, atomic: bool
) -> None:
    await shared.bridge.ready()
    async with client(shared.redis) as redis, arrivals(shared.nats) as arrived:
        await redis.set("payload", "v")
        payload = await redis.dump("payload")
        assert payload is not None
        deadlines: dict[bytes, list[int | None]] = {}
        newer = newer_ways if isinstance(shared.redis, ValkeyServer) else lambda _: {}
        for way in [*ways(b"", payload, 0), *newer(b"")]:
            key = f"journey:{way}:{atomic}".encode()
            commands = {**ways(key, payload, await now_ms(redis)), **newer(key)}[way]
            deadlines[key] = [await deadline_after(redis, key, *commands, atomic=atomic)]
            if way.startswith("COPY"):
                deadlines[key + b":source"] = deadlines[key]
        await all_of(arrived, deadlines)
        await everything_due(redis, arrived)
    sources = {key + b":source" for key in deadlines}
    assert told(arrived, deadlines.keys() | sources) == deadlines
    for message in arrived:
        message.keeps_the_contract()


async def test_keys_that_come_from_another_database_are_announced(shared: World) -> None:
    await shared.bridge.ready()
    moved, returned, copied, stayed = keys = b"abroad:moved", b"abroad:returned", b"abroad:copied", b"abroad:stayed"
    async with client(shared.redis) as home, client(shared.redis, 1) as abroad, arrivals(shared.nats) as arrived:
        deadlines = {moved: await set_for(abroad, moved, 900), returned: await set_for(home, returned, 900)}
        deadlines[copied] = await set_for(abroad, copied, 900)
        await set_for(abroad, stayed, 900)
        assert await run(home, "MOVE", returned, 1)
        assert await run(abroad, "MOVE", returned, 0)
        assert await run(abroad, "MOVE", moved, 0)
        assert await run(abroad, "COPY", copied, copied, "DB", 0)
        await everything_due(home, arrived, max(deadlines.values()))
    assert told(arrived, keys) == {key: [deadline] for key, deadline in deadlines.items()}


async def test_two_thousand_keys_with_the_same_deadline_arrive_once_each(shared: World) -> None:
    await shared.bridge.ready()
    keys = [b"crowd:%d" % number for number in range(2000)]
    async with client(shared.redis) as redis, arrivals(shared.nats) as arrived:
        deadline_ms = int(await run(redis, "EVAL", SET_TOGETHER, 1, LEDGER, 1000, 1, *keys))
        await all_of(arrived, set(keys))  # Redis may expire a sentinel before some of so many
        await everything_due(redis, arrived, deadline_ms)
    assert told(arrived, set(keys)) == {key: [deadline_ms] for key in keys}
    for message in arrived:
        message.keeps_the_contract()


async def test_a_key_that_expires_before_it_can_be_recorded_arrives_without_a_deadline(shared: World) -> None:
    await shared.bridge.ready()
    keys = [b"instant:1", b"instant:2"]
    busy = ("EVAL", "for i = 1, 3000000 do end", 0)  # no other client is served between the commands of one pipeline
    async with client(shared.redis) as redis, arrivals(shared.nats) as arrived:
        shared.nats.pause()
        try:
            for key in keys:
                assert await deadline_after(redis, key, ("SET", key, "v", "PX", 1), busy) == -2

            async def both_wait() -> bool:
                return await redis.hget(LEASE, "depth") == b"2"

            await wait_until(both_wait)
            entries = await run(redis, "XRANGE", OUTBOX, "-", "+")
        finally:
            shared.nats.resume()
        await all_of(arrived, keys)
        await everything_due(redis, arrived)
    ids = {}
    for entry, fields in entries:
        claims = msgpack.unpackb(fields[b"claims"])
        for index, key in enumerate(claims[::3]):
            ids[key.encode()] = id_of_entry(key.encode(), entry, index)
    assert told(arrived, keys) == {key: [None] for key in keys}
    for message in arrived[: len(keys)]:
        message.keeps_the_contract()
        assert message.event["id"] == ids[message.key]


async def test_a_deadline_in_the_past_is_an_expiration_where_the_server_says_so(shared: World) -> None:
    await shared.bridge.ready()
    with_ttl, without = b"past:1", b"past:2"
    async with client(shared.redis) as redis, arrivals(shared.nats) as arrived:
        await recorded(redis, with_ttl, await set_for(redis, with_ttl, 60_000))
        await redis.set(without, "v")
        for key in (with_ttl, without):
            assert await redis.pexpireat(key, 1)
        await everything_due(redis, arrived)
    # Redis notifies `del`, Valkey 9 `expired`; that deadline itself was never a key's, so nobody could read it.
    expected = [None] if isinstance(shared.redis, ValkeyServer) else []
    assert told(arrived, [with_ttl, without]) == {key: expected for key in (with_ttl, without) if expected}


async def test_keys_arrive_on_a_server_that_expires_nothing_by_itself(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, LAZY) as lazy:
        await lazy.bridge.ready()
        async with client(lazy.redis) as redis, arrivals(lazy.nats) as arrived:
            await be_lazy(redis)
            deadlines = {key: await set_for(redis, key, 300 + 10 * key[-1]) for key in (b"l:1", b"l:2", b"l:3")}
            await all_of(arrived, deadlines)
    assert told(arrived, deadlines) == {key: [deadline] for key, deadline in deadlines.items()}
    for message in arrived:
        message.keeps_the_contract()
