"""Several bridges in the test's event loop, which share the shards: what must not make them lose one for good."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.broker_state import BrokerState
from bridge.clock import SystemClock
from bridge.errors import NotConnected, Refused
from bridge.expiration import GapRecord, Identity
from bridge.limits import Limits
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.entries import read_entry
from bridge.redis.protocol.own_keys import Names
from bridge.redis.source.shards import Shards
from bridge.redis.wire.endpoint import Address
from bridge.redis.wire.sentinel import Sentinels
from bridge.settings import Settings
from bridge.tasks import end
from bridge.telemetry.events import Telemetry
from tests.support.harness.inside import SOON, Inside
from tests.support.redis.commands import set_for, user_of
from tests.support.servers import RedisServer, require, wait_until

NAMES = Names("expiry-bridge", 0)
PATIENCE = 40.0


class Sharing:
    """One bridge, without delivery. Its broker is there, unless a test says that it is not."""

    def __init__(self, url: str, name: str, shards: int, limits: Limits = SOON) -> None:
        settings = Settings.model_validate({"redis_url": url, "shards": shards, "scan_interval": 0})
        self.telemetry = Telemetry()
        self.broker = BrokerState()
        self.broker.up = True
        self.shards = Shards(Runtime(settings, name, SystemClock(), limits, self.broker), self.telemetry)
        self.task = asyncio.create_task(self.shards.run(), name=name)

    @property
    def at_work(self) -> list[int]:
        """Its shards with an epoch."""
        if self.task.done():
            self.task.result()
        return [shard for shard, source in enumerate(self.shards._sources) if source.phases.in_epoch]

    async def stop(self) -> None:
        self.shards.stop()
        await self.task
        await self.shards.close()


@asynccontextmanager
async def sharing(shards: int, *urls: str, limits: Limits = SOON) -> AsyncIterator[list[Sharing]]:
    """So many bridges, each by its URL."""
    bridges = [Sharing(url, f"bridge-{number}", shards, limits) for number, url in enumerate(urls)]
    try:
        yield bridges
    finally:
        await end([bridge.task for bridge in bridges])
        for bridge in bridges:
            await bridge.shards.close()


async def at_work(bridges: Sequence[Sharing], *shares: int) -> None:
    """Return when all shards are worked on, each bridge on so many."""

    def are_at_work() -> bool:
        found = [bridge.at_work for bridge in bridges]
        return tuple(map(len, found)) == shares and sorted(chain(*found)) == list(range(sum(shares)))

    await wait_until(are_at_work, lambda: str([bridge.at_work for bridge in bridges]), PATIENCE)


def is_sound(bridge: Sharing) -> bool:
    return bridge.telemetry.health.reasons.keys() == {"broker"}


async def fences(user: Redis, shards: int) -> list[Any]:
    return [await user.hget(NAMES.of(shard).lease, "fence") for shard in range(shards)]


async def test_the_number_of_shards_outlives_the_key_that_says_it(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user, sharing(3, redis_server.url) as bridges:
        await at_work(bridges, 3)
        before = await fences(user, 3)
        await user.delete(NAMES.shards)
        await user.client_kill_filter(_type="pubsub")

        async def is_anew() -> bool:
            return all(new != old for new, old in zip(await fences(user, 3), before, strict=True))

        await wait_until(is_anew, "new epochs", PATIENCE)
        await at_work(bridges, 3)
        assert await user.get(NAMES.shards) == b"3"


async def test_after_a_flush_all_shards_are_worked_on_again(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user, sharing(2, redis_server.url, redis_server.url) as bridges:
        for _ in range(3):
            await at_work(bridges, 1, 1)
            await user.flushdb()

            async def is_anew() -> bool:
                return all(await fences(user, 2))

            await wait_until(is_anew, "new leases", PATIENCE)
        await at_work(bridges, 1, 1)
        assert await user.get(NAMES.shards) == b"2"


async def test_a_bridge_that_cannot_listen_leaves_its_shards_to_one_that_can(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user:
        await user.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
        deaf = redis_server.url.replace("redis://", "redis://deaf:secret@")
        async with sharing(2, redis_server.url, deaf) as bridges:
            await at_work(bridges, 1, 1)
            for bridge in bridges:
                await wait_until(partial(is_sound, bridge), "readiness", PATIENCE)
            await user.execute_command("ACL", "SETUSER", "deaf", "resetchannels")  # type: ignore[no-untyped-call]
            await at_work(bridges, 2, 0)


async def test_a_bridge_without_its_broker_takes_nothing_back_until_the_broker_is_back(
    redis_server: RedisServer,
) -> None:
    limits = replace(SOON, source=replace(SOON.source, broker_patience=0.3, unable=0.5))
    async with (
        user_of(redis_server) as user,
        sharing(2, redis_server.url, redis_server.url, limits=limits) as (able, other),
    ):
        await at_work([able, other], 1, 1)
        other.broker.up = False
        await at_work([able, other], 2, 0)
        before, members, clock = await fences(user, 2), other.shards._members, SystemClock()
        tried_again = clock.monotonic() + limits.source.unable + 5 * limits.source.sign_of_life
        await wait_until(lambda: members.works and clock.monotonic() > tried_again, "what would be another attempt")
        assert (other.at_work, await fences(user, 2)) == ([], before)

        await able.stop()
        await at_work([other], 2)
        other.broker.up = True
        await wait_until(lambda: members.counts, "it to count again")


async def test_a_bridge_that_may_not_give_signs_of_life_ends(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user:
        await user.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-hgetall")  # type: ignore[no-untyped-call]
        async with sharing(2, redis_server.url.replace("redis://", "redis://mute:secret@")) as (bridge,):
            with pytest.raises(Refused, match="does not permit"):
                await bridge.task


async def test_all_shards_follow_the_primary_also_those_that_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    require(RedisServer)
    with RedisServer() as first, RedisServer() as second:
        named = [first.port]

        async def primary(_: Sentinels) -> Address:
            if not named:
                raise NotConnected("no sentinel answers")
            return "127.0.0.1", named[0]

        monkeypatch.setattr(Sentinels, "primary", primary)
        url = "redis+sentinel://127.0.0.1:1/service"
        async with sharing(2, url, url) as (one, other):
            await at_work([one, other], 1, 1)
            named[0] = second.port
            first.kill()
            await at_work([one, other], 1, 1)
            await one.stop()
            await at_work([other], 2)


@pytest.mark.unmeasured
async def test_the_canaries_of_other_shards_are_not_missed(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user, sharing(4, redis_server.url, redis_server.url) as (one, other):
        await at_work([one, other], 2, 2)
        await wait_until(partial(is_sound, one), "canaries", PATIENCE)
        dead = one.at_work
        for shard in dead:
            await user.hset(NAMES.of(shard).lease, "ears", "")  # its death is not seen: the lease has to end
        await end([one.task])  # as a kill: nothing is released
        for shard in dead:
            await user.hset(NAMES.of(shard).lease, mapping={"until": "0", "place": ""})
        await at_work([other], 4)

        async def gaps(shard: int) -> list[GapRecord]:
            entries: Any = await user.xrange(NAMES.of(shard).outbox)
            events = [
                event for id_, fields in entries for event in read_entry(Identity("/redis", 0), id_, fields).events
            ]
            return [event for event in events if isinstance(event, GapRecord)]

        for shard in dead:

            async def is_closed(shard: int = shard) -> bool:
                return len(await gaps(shard)) >= 2

            await wait_until(is_closed, "the gap", PATIENCE)
            assert (await gaps(shard))[-1].missed == 0
        one.task = asyncio.create_task(asyncio.sleep(0), name="gone")


async def test_a_bridge_at_a_replica_does_not_deliver_what_another_one_delivers(redis_kind: type[RedisServer]) -> None:
    with redis_kind() as primary, redis_kind() as other:
        async with Inside(primary.port) as bridge, Inside(other.port, "second") as second:
            await bridge.reconciled()
            await second.reconciled()
            bridge.broker.up.clear()  # what it claims stays in the outbox
            async with user_of(primary) as user, user_of(other) as replica:
                await set_for(user, b"k", 50)

                async def is_claimed(at: Redis) -> bool:
                    return await at.hget(NAMES.lease, "depth") == b"1"

                await wait_until(lambda: is_claimed(user), "the claim", PATIENCE)
                await replica.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))  # type: ignore[no-untyped-call]
                await second.ended()
                await wait_until(lambda: is_claimed(replica), "the replica", PATIENCE)
                assert list(await second._source.outbox.next(10, anyway=True)) == []
                assert second.published == []
                await replica.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
            bridge.broker.up.set()
            await bridge.told(1)
            with suppress(TimeoutError):
                await second.reconciled(2)
