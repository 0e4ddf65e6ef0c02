"""Keys are bytes: any byte string makes the whole journey, in both content modes, and none of it gets into the log.

One bridge writes structured messages, with the default subject; another one, of database 1, writes binary messages,
with all parts of a key in the subject.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.support.contract import token
from tests.support.deployments.arrivals import arrivals, everything_due, told
from tests.support.deployments.world import World, bridged, world
from tests.support.kinds import EACH_KIND
from tests.support.redis.commands import recorded, redis_ms, run, user_of
from tests.support.servers import Bridge, wait_until

pytestmark = pytest.mark.unmeasured

HEADER_LIMIT = 64 * 1024
"""What JetStream takes as headers of one message."""
SUBJECT_LIMIT = 3900
"""What the bridge takes as a subject: NATS closes the connection on a protocol line above 4 kB."""

STRANGE = [
    b"",
    b"\0",
    b"a\0b",
    b"line\nfeed",
    b"\r\n",
    b"PUB a 1\r\nx",
    b"\xff\xfe",
    b"\x80",
    b"good:\xc3\x28",
    b"\xed\xa0\x80",  # a surrogate, which is no UTF-8
    b"\x1b[31m",
    b"\x7f",
    "\u0085\u2028".encode(),
    "\ufffe \U0010ffff".encode(),
    "ключ:значение".encode(),
    "\U0001f511:1".encode(),
    b"*",
    b">",
    b"a.*.>",
    b"*:>",
    b" ",
    b" a b ",
    b"\t",
    b".",
    b"a.b:c.d",
    b"..",
    b"_",
    b"_gap",
    b"_gap:_gap",
    b"%",
    b"%00",
    b"100%:%5F",
    b"{}",
    b"{db}.{prefix}",
    b"{key}:{key}",
    b"{expiry-bridg:0:0}:deadline",  # of no bridge
    b"expiry-bridge",
    b":",
    b"::",
    b":a",
    b"a:",
    b"a::b",
    b"$JS.API.STREAM.DELETE.EXPIRY",
    b'"',
    b"\\",
    b'{"a":"\\u0000"}',
    b"'",
    b"\xef\xbb\xbfmarked",
    b"long:" + b"0123456789" * 10_000,
    b"wide:" + b"\xff" * 100_000,
]


@dataclass(frozen=True)
class Both:
    """Two bridges at one Redis."""

    structured: World
    binary: Bridge

    def logs(self) -> str:
        """All that both have written."""
        return self.structured.bridge.log(1_000_000) + self.binary.log(1_000_000)


@pytest.fixture(scope="module", params=EACH_KIND)
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    """The tests of this module tell themselves apart by the deadlines of their keys."""
    with world(request.param) as made:
        more = {"redis_url": f"{made.redis.url}/1", "nats_subject": "binary.{db}.{key}", "nats_stream": "BINARY"}
        with bridged(made.redis, made.nats, content_mode="binary", **more) as bridge:
            yield Both(made, bridge)


async def set_all(redis: Redis, keys: Sequence[bytes], ms: int) -> dict[bytes, list[int | None]]:
    """Set keys that live for `ms` milliseconds; their deadline."""
    deadline_ms = await redis_ms(redis) + ms
    pipeline = redis.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, "v", pxat=deadline_ms)
    await pipeline.execute()
    return {key: [deadline_ms] for key in keys}


async def dead_letters(redis: Redis, db: int) -> dict[bytes, bytes]:
    """Keys and reasons."""
    letters = await run(redis, "XRANGE", f"{{expiry-bridge:{db}:0}}:dead", "-", "+")
    return {fields[b"key"]: fields[b"reason"] for _, fields in letters}


async def announced(both: Both, keys: Sequence[bytes], ms: int) -> None:
    """Set the keys in both databases; fail unless each is announced, or is a dead letter for a limit of NATS's."""
    await both.structured.bridge.ready()
    await both.binary.ready()
    async with AsyncExitStack() as stack:
        redis = [await stack.enter_async_context(user_of(both.structured.redis, db)) for db in (0, 1)]
        nats_server = both.structured.nats
        structured = await stack.enter_async_context(arrivals(nats_server))
        binary = await stack.enter_async_context(arrivals(nats_server, stream="BINARY"))
        deadlines = [await set_all(one, keys, ms) for one in redis]
        await everything_due(redis[0], structured, await redis_ms(redis[0]) + ms)
        await everything_due(redis[1], binary, await redis_ms(redis[1]) + ms)
        letters = [await dead_letters(one, db) for db, one in enumerate(redis)]
    too_large = [key for key in keys if len(key) > HEADER_LIMIT or len(binary_subject(key)) > SUBJECT_LIMIT]
    for key in too_large:
        assert re.search(b"subject|header", letters[1][key])
        del deadlines[1][key]
    assert told(structured, set(keys)) == deadlines[0]
    assert told(binary, set(keys)) == deadlines[1]
    for message in structured:
        message.keeps_the_contract()
    for message in binary:
        message.keeps_the_contract(db=1, subject=binary_subject(message.key))


def binary_subject(key: bytes) -> str:
    """With all parts of the key."""
    return ".".join(["binary.1", *map(token, key.split(b":"))])


async def test_any_byte_string_is_a_key(both: Both) -> None:
    await announced(both, STRANGE, 1000)


# No shrinking: each example takes as long as its keys live.
@pytest.mark.slow
@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    keys=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.text(max_size=20).map(str.encode),
            st.lists(st.sampled_from([b":", b"_", b"%", b".", b"*", b">", b" ", b"\n", b"a", b"\xff"])).map(b"".join),
        ),
        min_size=100,
        max_size=200,
        unique=True,
    )
)
async def test_keys_that_nobody_has_thought_of_are_keys_too(both: Both, keys: list[bytes]) -> None:
    await announced(both, [key for key in keys if not key.startswith(b"{expiry-bridge:")], 500)


async def test_keys_with_the_prefix_of_the_bridges_own_are_ignored(both: Both) -> None:
    await both.structured.bridge.ready()
    own = [b"{expiry-bridge:", b"{expiry-bridge:0:0}:mine", b"{expiry-bridge:7:0}:mark:1-1", b"{expiry-bridge:\xff\n"]
    others = [b"{expiry-bridge", b"expiry-bridge:0:0", b"{expiry-bridge}:x", b" {expiry-bridge:0:0}:x"]
    async with user_of(both.structured.redis) as redis, arrivals(both.structured.nats) as arrived:
        deadlines = await set_all(redis, own + others, 600)
        await everything_due(redis, arrived, await redis_ms(redis) + 600)
    assert told(arrived, own + others) == {key: deadlines[key] for key in others}


async def test_no_key_gets_into_the_log(both: Both) -> None:
    """Not even one that becomes a dead letter, or that somebody else's command took away."""
    await both.structured.bridge.ready()
    private = b"SecretlyPersonal"
    keys = [private, b"x:" + private, private + b"\xff\n", private * 300, b"gone:" + private]
    async with user_of(both.structured.redis) as redis, arrivals(both.structured.nats) as arrived:
        deadlines = await set_all(redis, keys, 800)
        await recorded(redis, keys[-1], deadlines[keys[-1]][0])
        await redis.delete(keys[-1])
        await everything_due(redis, arrived, await redis_ms(redis) + 800)
        assert private * 300 in await dead_letters(redis, 0)
    await wait_until(lambda: "messages.rejected" in both.logs())
    assert told(arrived, keys) == {key: deadlines[key] for key in keys[:3]}
    assert private.decode() not in both.logs()
