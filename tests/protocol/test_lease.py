"""Who gets a lease that is free: one that could go on where the former holder was, before one that could not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bridge.broker_state import BrokerState
from bridge.clock import SystemClock
from bridge.limits import LedgerLimits
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Claim, Held, Lease
from bridge.redis.protocol.own_keys import Names
from bridge.redis.source.membership import Members
from bridge.redis.source.phases import Phase
from bridge.redis.source.shard import RedisSource
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.tasks import end
from bridge.telemetry.events import Telemetry
from tests.support.harness.inside import Recorder
from tests.support.harness.user import NAMES
from tests.support.limits import QUICK
from tests.support.redis.commands import redis_ms
from tests.support.servers import RedisServer, wait_until

PLACE = b"1-1 0 -"

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[Ledger]:
    """Whose last holder has left it, with a place to go on from."""
    with closing(Commands(Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{server.port}")))) as commands:
        ledger = Ledger(commands, NAMES, LedgerLimits())
        former = await ledger.acquire(Claim("former", listens=True))
        assert isinstance(former, Lease)
        await ledger.release(former.fence, 0, PLACE, left=True)
        yield ledger


async def test_one_that_has_just_begun_to_listen_leaves_it_to_one_that_listened(ledger: Ledger, user: Redis) -> None:
    async with user.pubsub() as standby, user.pubsub() as its_own:
        for listener in (standby, its_own):
            await listener.subscribe(NAMES.announcements)
            assert await listener.get_message(timeout=None)

        refused = await ledger.acquire(Claim("late", listens=True, late=True))
        assert isinstance(refused, Held)
        assert (refused.holder, refused.place) == ("", PLACE), "it is free, and can be gone on with from there"
        granted = await ledger.acquire(Claim("standby", listens=True))
        assert isinstance(granted, Lease)
        assert granted.place == PLACE


async def test_where_no_other_bridge_listens_it_takes_the_lease_at_once(ledger: Ledger, user: Redis) -> None:
    async with user.pubsub() as its_own:
        await its_own.subscribe(NAMES.announcements)
        assert await its_own.get_message(timeout=None)

        assert isinstance(await ledger.acquire(Claim("late", listens=True, late=True)), Lease)


@asynccontextmanager
async def listening(user: Redis, *bridges: str) -> AsyncIterator[None]:
    """As long as these bridges listen, each to its own channel."""
    async with user.pubsub() as ears:
        for bridge in bridges:
            await ears.subscribe(NAMES.alive(bridge))
            assert await ears.get_message(timeout=None)
        yield


async def test_one_that_could_not_go_on_leaves_it_to_one_that_could(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "holder", "heir"):
        holder = await ledger.acquire(Claim("holder", listens=True))
        assert isinstance(holder, Lease)
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True, entitled=False)), Held)
        assert not await ledger.has_claimant("holder"), "it may not take it"
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True)), Held)
        assert await ledger.has_claimant("holder")

        await ledger.release(holder.fence, 0, PLACE, left=True)
        refused = await ledger.acquire(Claim("unprepared", listens=True, patient=True))
        assert isinstance(refused, Held)
        assert (refused.holder, refused.place) == ("", PLACE)
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True)), Lease)
        assert not await ledger.has_claimant("holder"), "it has the lease"


async def test_one_that_does_not_reach_its_broker_asks_for_no_share(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "holder", "heir"):
        assert isinstance(await ledger.acquire(Claim("holder", listens=True)), Lease)
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True, able=False)), Held)
        assert not await ledger.has_claimant("holder"), "the holder could deliver, it could not"
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True)), Held)
        assert await ledger.has_claimant("holder")


async def test_it_is_not_left_to_the_heir_for_ever(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "holder", "heir"):
        holder = await ledger.acquire(Claim("holder", listens=True))
        assert isinstance(holder, Lease)
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True)), Held)
        await ledger.release(holder.fence, 0, PLACE, left=True)

        assert isinstance(await ledger.acquire(Claim("unprepared", listens=True)), Lease)


async def test_where_the_lease_was_lost_a_standby_makes_none(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "heir"):
        await user.flushdb()
        assert await ledger.acquire(Claim("heir", listens=True, entitled=False, hot=True)) == Held("", 0)
        assert not await user.exists(NAMES.lease), "it would look like one from before there were shards"


async def test_what_was_noted_before_the_clock_was_set_back_does_not_count(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "heir"):
        now, lease_ms = await redis_ms(user), LedgerLimits().lease_ms
        for role in ("able", "claimant"):
            await user.hset(NAMES.lease, mapping={role: "heir", f"{role}_until": now + 10 * lease_ms})
        assert not await ledger.has_claimant("holder")
        assert not await ledger.has_able_standby("holder")

        for role in ("able", "claimant"):
            await user.hset(NAMES.lease, f"{role}_until", now + lease_ms)
        assert await ledger.has_claimant("holder")
        assert await ledger.has_able_standby("holder")


async def test_one_that_listens_no_longer_is_no_heir(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "holder"):
        holder = await ledger.acquire(Claim("holder", listens=True))
        assert isinstance(holder, Lease)
        assert isinstance(await ledger.acquire(Claim("heir", listens=True, hot=True)), Held)
        await ledger.release(holder.fence, 0, PLACE, left=True)

        assert not await ledger.has_claimant("holder")
        assert isinstance(await ledger.acquire(Claim("unprepared", listens=True, patient=True)), Lease)


async def test_what_a_bridge_has_and_does_not_take_again_is_free(ledger: Ledger, user: Redis) -> None:
    async with listening(user, "holder"):
        assert isinstance(await ledger.acquire(Claim("holder", listens=True)), Lease)
        held = await ledger.acquire(Claim("another", listens=True))
        assert isinstance(held, Held)
        assert held.holder == "holder"

        free = await ledger.acquire(Claim("holder", listens=True, entitled=False))
        assert free == Held("", 0, PLACE, held.fingerprint)
        granted = await ledger.acquire(Claim("another", listens=True))
        assert isinstance(granted, Lease)
        assert (granted.former, granted.place) == ("", PLACE)


async def test_the_first_gap_goes_on_where_it_began_whoever_has_the_lease(server: RedisServer, user: Redis) -> None:
    with closing(Commands(Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{server.port}")))) as commands:
        ledger = Ledger(commands, NAMES, LedgerLimits())
        before = await redis_ms(user)
        first = await ledger.acquire(Claim("first", listens=True))
        after = await redis_ms(user)
        second = await ledger.acquire(Claim("second", listens=True))

    assert isinstance(first, Lease)
    assert isinstance(second, Lease)
    assert first.handled_ms is None
    assert second.handled_ms is not None
    assert before <= second.handled_ms <= after


async def test_where_there_is_nothing_to_go_on_from_the_first_one_takes_it(ledger: Ledger, user: Redis) -> None:
    await user.hset(NAMES.lease, "place", "")
    async with user.pubsub() as standby:
        await standby.subscribe(NAMES.announcements)
        assert await standby.get_message(timeout=None)

        assert isinstance(await ledger.acquire(Claim("late", late=True)), Lease)


async def test_one_that_the_bridge_whose_share_it_is_does_not_take_is_taken_by_another_and_kept(
    server: RedisServer, user: Redis
) -> None:
    chosen = Settings(redis_url=f"redis://127.0.0.1:{server.port}", shards=2)
    limits = replace(QUICK, source=replace(QUICK.source, backoff_most=0.2, forsaken=0.5, join=0.1))
    runtime = Runtime(chosen, "able", SystemClock(), limits, BrokerState())
    names = Names(chosen.namespace, 0, 1)

    async def sign_of_life() -> None:
        await user.hset(names.members, "another", await redis_ms(user) + limits.source.life_ms)

    async def another_lives() -> None:
        """And takes nothing."""
        while True:
            await asyncio.sleep(limits.source.sign_of_life)
            await sign_of_life()

    members = Members(runtime, lambda: source.ledger.roster, 2)
    source = RedisSource(runtime, Recorder(Telemetry()), members, number=1)
    members.took(0, None)
    await sign_of_life()
    tasks = [asyncio.create_task(work) for work in (another_lives(), members.run(), source.run())]
    try:
        await wait_until(lambda: source.phases.now is Phase.WATCHING, "the shard to be taken")
        members.took(2, None)
        await wait_until(lambda: members.surplus(2), "all else to be given up")
        assert members.share == 1
        assert not members.surplus(1)
    finally:
        await end(tasks)
        await source.close()


@asynccontextmanager
async def with_one_too_many(url: str, user: Redis) -> AsyncIterator[tuple[RedisSource, Members, Recorder]]:
    """A bridge that has both of two shards, and was about to give the second one up: another bridge lives."""
    limits = replace(QUICK, source=replace(QUICK.source, backoff_most=0.2, forsaken=0.5, join=0.1, unable=1.0))
    runtime = Runtime(Settings(redis_url=url, shards=2), "able", SystemClock(), limits, BrokerState())
    names = Names(runtime.settings.namespace, 0, 1)
    members = Members(runtime, lambda: source.ledger.roster, 2)
    told = Recorder(Telemetry())
    source = RedisSource(runtime, told, members, number=1)
    members.took(0, None)

    async def another_lives() -> None:
        while True:
            await user.hset(names.members, "another", await redis_ms(user) + limits.source.life_ms)
            await asyncio.sleep(limits.source.sign_of_life)

    tasks = [asyncio.create_task(work) for work in (members.run(), source.run())]
    try:
        await wait_until(lambda: source.phases.now is Phase.WATCHING, "the shard to be taken")
        tasks.append(asyncio.create_task(another_lives()))
        await wait_until(lambda: members.share == 1, "a smaller share")
        yield source, members, told
    finally:
        await end(tasks)
        await source.close()


async def test_one_that_no_other_bridge_could_take_is_not_handed_over(server: RedisServer, user: Redis) -> None:
    async with with_one_too_many(f"redis://127.0.0.1:{server.port}", user) as (source, members, told):

        async def is_kept() -> bool:
            return members.share == 1 and not members.surplus(1)

        for _ in range(2):
            await wait_until(lambda: members.surplus(1) or told.endings, "the shard to be one too many")
            await wait_until(is_kept, "that no other bridge listens to be found out")
        assert told.endings == []
        assert source.phases.now is Phase.WATCHING

        async with user.pubsub() as another:
            await another.subscribe(Names("expiry-bridge", 0, 1).announcements)
            await wait_until(lambda: told.endings, "the shard to be handed over to a bridge that listens")
        assert told.endings == ["handed over: another bridge has fewer shards"]


async def test_it_is_handed_over_where_redis_does_not_say_who_listens(server: RedisServer, user: Redis) -> None:
    await user.execute_command("ACL", "SETUSER", "unsure", "on", ">secret", "~*", "&*", "+@all", "-pubsub")  # type: ignore[no-untyped-call]
    async with with_one_too_many(f"redis://unsure:secret@127.0.0.1:{server.port}", user) as (_, _, told):
        await wait_until(lambda: told.endings, "the shard to be handed over")
    assert told.endings[0] == "handed over: another bridge has fewer shards"
