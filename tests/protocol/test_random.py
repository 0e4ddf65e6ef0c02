"""Random histories on a real server, against a subscriber that counts by itself.

Short ones: the simulation (`tests/simulation`) draws far more, of a whole deployment.

`EXPIRY_TEST_SECONDS` makes each test go on for so long; `EXPIRY_TEST_SEED` repeats the choices of a run, though not its
timing, which is the servers' own.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from bridge.tasks import end
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import SENTINEL, Event, deadlines, ids, key_of, keys, written
from tests.support.harness.user import NAMES, NOTIFY, expired, lapse
from tests.support.harness.witness import Witness
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Protocol, Proxy, command, is_subscriber
from tests.support.servers import Bridge, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

SECONDS = float(os.environ.get("EXPIRY_TEST_SECONDS", "0"))
HOT = [b"hot:%d" % number for number in range(50)]
EXPIRATIONS = 1_000
"""Seen by the default run without faults."""
KILLS = 2
"""And epoch ends of every other kind, in the default run with faults."""
RECORDED = 150
"""Keys that were recorded, which a run with faults needs at least to tell anything."""


@pytest.fixture
def rng() -> random.Random:
    """The choices; the seed is shown where the test fails."""
    seed = int(os.environ.get("EXPIRY_TEST_SEED") or random.randrange(2**32))
    sys.stdout.write(f"EXPIRY_TEST_SEED={seed}\n")
    return random.Random(seed)


@pytest.fixture
def server(redis_kind: type[RedisServer]) -> Iterator[RedisServer]:
    """A server that notifies from its first moment: the subscriber may be there before the bridge."""
    with redis_kind(NOTIFY) as server:
        yield server


class Length:
    """How long a test goes on: as long as was asked for, else until it has seen enough."""

    def __init__(self) -> None:
        self._end = time.monotonic() + SECONDS

    def over(self, *, enough: bool) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() > self._end if SECONDS else enough


# Without faults: exactly what Redis said.


def random_command(rng: random.Random) -> tuple[str | bytes | int, ...]:
    """One command of a user on the hot keys."""
    key, other, ms = rng.choice(HOT), rng.choice(HOT), rng.randint(1, 60)
    return rng.choices(
        [
            ("SET", key, "", "PX", ms),
            ("PSETEX", key, ms, ""),
            ("PEXPIRE", key, ms),
            ("GETEX", key, "PX", ms),
            ("PERSIST", key),
            ("DEL", key),
            ("GETDEL", key),
            ("SET", key, ""),
            ("SET", key, "", "KEEPTTL"),
            ("RENAME", key, other),
            ("COPY", key, other, "REPLACE"),
            ("EXPIREAT", key, 1),
            ("SET", key, "", "PXAT", 1),
            ("EXISTS", key),
        ],
        weights=[40, 4, 8, 4, 3, 4, 2, 2, 3, 4, 4, 2, 1, 4],
    )[0]


async def write(user: Redis, rng: random.Random) -> None:
    """One random burst."""
    pipeline = user.pipeline(transaction=False)
    for _ in range(rng.randint(1, 30)):
        pipeline.execute_command(*random_command(rng))
    await pipeline.execute(raise_on_error=False)  # RENAME of what is not there
    await asyncio.sleep(rng.random() * 0.006)


async def hold_and_release(proxy: Proxy, rng: random.Random) -> None:
    """Hold the subscription now and then, far shorter than would end it."""
    while True:
        held = proxy.stall(TO_CLIENT, is_subscriber)
        await asyncio.sleep(rng.random() * 0.15)
        held.release()
        await asyncio.sleep(rng.random() * 0.1)


async def test_exactly_the_expirations_that_redis_notified_are_told(
    server: RedisServer, user: Redis, rng: random.Random
) -> None:
    async with (
        Proxy(server.port, Protocol.RESP) as proxy,
        Witness(user) as witness,
        Inside(proxy.port) as bridge,
        alongside(hold_and_release(proxy, rng)),
    ):
        await bridge.reconciled()
        length = Length()
        while not length.over(enough=witness.total >= EXPIRATIONS):
            await write(user, rng)
        await no_deadlines(user)
        await witness.caught_up()
        await bridge.quiet(user)
        assert bridge.telemetry.endings == []
        assert Counter(keys(bridge.published)) == witness.counts
        assert max(Counter(ids(bridge.published)).values()) == 1


async def no_deadlines(user: Redis) -> None:
    """Return when no hot key has a deadline any more. Looking at them makes Redis expire them."""

    async def are_none() -> bool:
        pipeline = user.pipeline(transaction=False)
        for key in HOT:
            pipeline.pttl(key)
        return all(ttl < 0 for ttl in await pipeline.execute())

    await wait_until(are_none, "the last deadline")


@asynccontextmanager
async def alongside(work: object) -> AsyncIterator[None]:
    """Have something done for as long as the block lasts."""
    assert asyncio.iscoroutine(work)
    task = asyncio.create_task(work, name="alongside")
    try:
        yield
        assert not task.done()
    finally:
        await end([task])


# With faults: whatever is recorded is told, under one id.


_IN_LEDGER = """
local known = {}
for i = 2, #KEYS do
  local deadline = redis.call('PEXPIRETIME', KEYS[i])
  local score = tonumber(redis.call('ZSCORE', KEYS[1], KEYS[i]) or 0)
  if deadline > 0 and score == deadline then known[#known + 1] = KEYS[i] end
end
return known
"""


class Lives:
    """Keys that live once, for a while that is long enough to be recorded, and hot ones that only expire."""

    def __init__(self, user: Redis, rng: random.Random) -> None:
        self.recorded: set[bytes] = set()
        """Keys that were seen in the ledger with their deadline."""
        self._user = user
        self._rng = rng
        self._count = 0
        self._alive: dict[bytes, float] = {}

    async def go_on(self) -> None:
        """Write, and look what is recorded, until cancelled."""
        rng = self._rng
        while True:
            pipeline = self._user.pipeline(transaction=False)
            for _ in range(rng.randint(1, 8)):
                self._count += 1
                key, ms = b"once:%d" % self._count, rng.randint(20, 600)
                self._alive[key] = time.monotonic() + ms / 1000
                pipeline.set(key, b"", px=ms)
            for _ in range(rng.randint(0, 8)):
                key, ms = rng.choice(HOT), rng.randint(1, 60)
                pipeline.execute_command(
                    *rng.choice([("SET", key, "", "PX", ms), ("PEXPIRE", key, ms), ("PERSIST", key), ("SET", key, "")])
                )
            await pipeline.execute()
            now = time.monotonic()
            self._alive = {key: end for key, end in self._alive.items() if end > now}
            self.recorded.update(await self._user.eval(_IN_LEDGER, 1 + len(self._alive), NAMES.deadlines, *self._alive))
            await asyncio.sleep(rng.random() * 0.01)

    @property
    def can_tell(self) -> bool:
        """Whether so many were recorded that what is not lost means something."""
        return len(self.recorded) >= RECORDED

    async def end(self) -> None:
        """Return when nothing that was written has a deadline any more."""
        await no_deadlines(self._user)
        await expired(self._user, b"the last", *self._alive)

    def check(self, told: list[Event], witness: Witness) -> None:
        """Compare what was told with what Redis notified."""
        by_key: dict[bytes, set[str]] = defaultdict(set)
        for event in told:
            by_key[key_of(event)].add(event["id"])
        assert len(set(ids(told))) == sum(map(len, by_key.values())), "an id of two keys"
        too_many = {key: found for key, found in by_key.items() if len(found) > witness.counts[key]}
        assert not too_many, "more ids than expirations"
        lost = {key for key in self.recorded & witness.counts.keys() if not by_key[key]}
        assert not lost
        assert self.recorded & witness.counts.keys(), "none that was recorded has expired"
        known = {key_of(event) for event, deadline in zip(told, deadlines(told), strict=True) if deadline}
        assert self.recorded & witness.counts.keys() <= known


async def subscribers(user: Redis) -> list[str]:
    """The connections of bridges that subscribe."""
    clients = await user.client_list(_type="pubsub")
    return [client["id"] for client in clients if client["name"] == "expiry-bridge"]


def is_epochs(words: list[bytes]) -> bool:
    """Whether it is a script of the epoch's: a touch, or a batch."""
    return words[3] == NAMES.deadlines


async def test_whatever_is_cut_nothing_recorded_is_lost(server: RedisServer, user: Redis, rng: random.Random) -> None:
    async with (
        Proxy(server.port, Protocol.RESP) as proxy,
        Witness(user) as witness,
        Inside(proxy.port, limits=SOON) as bridge,
    ):
        await bridge.reconciled()
        lives, length, epochs = Lives(user, rng), Length(), 0
        async with alongside(lives.go_on()):
            while not length.over(enough=epochs >= 5 * KILLS and lives.can_tell):
                proxy.break_on(TO_SERVER, command(b"EVALSHA"), rng.choice([Action.CUT, Action.CUT_REPLY]))
                if rng.random() < 0.7:
                    fault = rng.choice([Action.CUT, Action.CUT_REPLY])
                    proxy.break_on(TO_SERVER, command(b"EVALSHA", is_epochs), fault)
                else:
                    for subscriber in await subscribers(user):
                        await user.client_kill_filter(_id=subscriber)
                await bridge.ended(epochs + 1)
                await wait_until(lambda: not bridge.unready, lambda: f"the next epoch; {bridge.unready}")
                epochs = len(bridge.telemetry.endings)
        proxy.flow()
        await lives.end()
        await wait_until(lambda: not bridge.unready, lambda: f"the last epoch; {bridge.unready}")
        await bridge.quiet(user)
        await witness.caught_up()
        lives.check(bridge.published, witness)


async def test_whenever_it_is_killed_nothing_recorded_is_lost(
    server: RedisServer, user: Redis, rng: random.Random
) -> None:
    settings = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_SINK": "stdout"}
    async with Witness(user) as witness, Bridge(settings) as bridge:
        await bridge.ready()
        lives, length, kills = Lives(user, rng), Length(), 0
        async with alongside(lives.go_on()):
            while not length.over(enough=kills >= KILLS and lives.can_tell):
                await asyncio.sleep(rng.random() * 0.5)  # when is what is random
                for subscriber in await subscribers(user):
                    await user.client_kill_filter(_id=subscriber)
                await asyncio.sleep(rng.random() * 0.5)
                bridge.kill()
                kills += 1
                await asyncio.sleep(rng.random() * 0.2)
                await lapse(user)
                bridge.start()
                await bridge.ready()
        await lives.end()
        await user.set(SENTINEL, b"", px=1)
        await wait_until(lambda: nothing_waits(user), "the end of the ledger and the outbox")
        assert await bridge.stop() == 0
        await witness.caught_up()
        lives.check(written(bridge), witness)


async def nothing_waits(user: Redis) -> bool:
    """Whether ledger and outbox are empty."""
    return await user.zcard(NAMES.deadlines) == 0 and await user.xlen(NAMES.outbox) == 0
