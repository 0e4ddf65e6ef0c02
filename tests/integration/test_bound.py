"""An epoch is bound to one server: behind the address of the settings may be another one tomorrow.

What names it (DNS, a Service, a proxy) is a proxy here, that sends new connections elsewhere and leaves the old ones.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import key_of
from tests.support.harness.user import known, passed, recorded
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.commands import redis_ms, run, user_of
from tests.support.servers import RedisServer, require, wait_until

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

LONG_MS = 60_000


@dataclass
class Pair:
    """A primary behind an address, and its replica."""

    address: Proxy
    first: Redis
    second: Redis
    ports: tuple[int, int]

    async def promote(self) -> None:
        """The replica becomes a primary, and new connections reach it."""
        await run(self.second, "REPLICAOF", "NO", "ONE")
        self.address.target = self.ports[1]

    async def hang_up(self) -> None:
        """The former primary closes the connections for commands, and leaves the subscription."""
        await run(self.first, "CLIENT", "KILL", "TYPE", "normal")

    async def demote(self) -> None:
        """The former primary follows it."""
        await run(self.first, "REPLICAOF", "127.0.0.1", self.ports[1])


@pytest.fixture
async def pair(redis_kind: type[RedisServer]) -> AsyncIterator[Pair]:
    """In step."""
    require(redis_kind)
    with redis_kind({"repl-diskless-sync-delay": "0"}) as first:
        replica = {"repl-diskless-sync-delay": "0", "replicaof": f"127.0.0.1 {first.port}"}
        with redis_kind(replica) as second:
            async with (
                Proxy(first.port, Protocol.RESP) as address,
                user_of(first) as one,
                user_of(second) as other,
            ):
                await wait_until(lambda: in_step(one, other))
                yield Pair(address, one, other, (first.port, second.port))


async def in_step(primary: Redis, replica: Redis) -> bool:
    """Whether the replica has all that the primary has."""
    lead, follower = await primary.info("replication"), await replica.info("replication")
    return (follower.get("master_link_status"), follower["master_repl_offset"]) == ("up", lead["master_repl_offset"])


async def test_a_name_that_points_elsewhere_is_resolved_anew_though_the_old_server_lives(pair: Pair) -> None:
    async with Inside(pair.address.port, limits=SOON) as bridge:
        await bridge.reconciled()
        await pair.promote()
        await pair.demote()
        await bridge.reconciled(2)

        keys = {b"k%d" % number for number in range(20)}
        for key in keys:
            await pair.second.set(key, "", px=50)
        await bridge.told(len(keys))
        assert {key_of(event) for event in bridge.published} == keys


async def test_a_standby_resolves_the_name_anew_as_well(pair: Pair) -> None:
    async with Inside(pair.address.port, "holder", limits=SOON) as holder:
        await holder.reconciled()
        async with Inside(pair.address.port, "standby", limits=SOON) as standby:
            await listening(pair.first, 2)
            await wait_until(lambda: "standing by" in str(standby.unready), lambda: str(standby.unready))
            await pair.promote()
            await pair.demote()
            await listening(pair.second, 2)
            await holder.stop()
            await known(pair.second, b"k", 50)
            await standby.told(1)
            assert [key_of(event) for event in standby.published] == [b"k"]


async def listening(user: Redis, bridges: int) -> None:
    """Return when that many bridges listen there."""

    async def do_listen() -> bool:
        return len(await user.pubsub_channels("*:alive:*")) >= bridges

    await wait_until(do_listen, f"{bridges} bridges")


async def only_here(*users: Redis) -> None:
    """The bridge may not hear other databases: so nothing can be audited."""
    for user in users:
        await run(user, "ACL", "SETUSER", "default", "resetchannels", "&__keyevent@0__:*")


async def test_a_failover_behind_one_address_that_leaves_the_subscription_loses_nothing(pair: Pair) -> None:
    await only_here(pair.first, pair.second)
    async with Inside(pair.address.port, limits=SOON) as bridge:
        await bridge.reconciled()
        await pair.promote()
        await pair.hang_up()
        await pair.demote()

        keys = {b"k%d" % number for number in range(200)}
        for key in keys:
            await pair.second.set(key, "", px=4_000)
        await bridge.told(len(keys))
        assert {key_of(event) for event in bridge.published} == keys
        await bridge.records(2)


async def test_what_an_isolated_former_primary_notifies_is_not_believed(pair: Pair) -> None:
    await only_here(pair.first, pair.second)
    async with Inside(pair.address.port, limits=SOON) as bridge:
        await bridge.reconciled()
        keys = [b"k%d" % number for number in range(30)]
        deadline = 0
        for key in keys:
            deadline = await known(pair.first, key, 1_500)
        await recorded(pair.first, *keys)
        await wait_until(lambda: in_step(pair.first, pair.second))
        await pair.promote()
        await pair.hang_up()
        for key in keys:
            await pair.second.pexpire(key, LONG_MS)  # on the former primary, it expires

        await passed(pair.first, deadline)
        for key in keys:
            assert await pair.first.exists(key) == 0
        last = await known(pair.second, b"last", 50)
        await bridge.told(1)
        assert await redis_ms(pair.second) > last
        await bridge.reconciled(2)
        assert [key_of(event) for event in bridge.published] == [b"last"]


async def test_a_server_that_was_restarted_is_the_same(redis_kind: type[RedisServer]) -> None:
    require(redis_kind)
    with redis_kind(appendonly=True) as server:
        async with Proxy(server.port, Protocol.RESP) as address, Inside(address.port, limits=SOON) as bridge:
            await bridge.reconciled()
            server.kill()
            server.start()
            async with user_of(server) as user:
                await bridge.reconciled(2)
                await known(user, b"k", 50)
                await bridge.told(1)
                assert [key_of(event) for event in bridge.published] == [b"k"]
