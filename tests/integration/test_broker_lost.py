"""A bridge that alone has lost its broker leaves the work to one that reaches its own."""

from dataclasses import replace

from redis.asyncio import Redis

from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import key_of
from tests.support.harness.user import NAMES, known
from tests.support.servers import RedisServer, wait_until

QUICK = replace(SOON, source=replace(SOON.source, broker_patience=0.3, share_check=0.05))


async def holder(user: Redis) -> str:
    """Who has the lease."""
    name = await user.hget(NAMES.lease, "holder")
    return name.decode() if isinstance(name, bytes) else ""


async def test_a_holder_that_alone_has_lost_its_broker_hands_over(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port, "holder", limits=QUICK) as first:
        await first.reconciled()
        async with Inside(server.port, "standby", limits=QUICK) as second:
            await wait_until(lambda: user.hexists(NAMES.lease, "able"))
            first.broker.gone.set()
            await known(user, b"k", 50)
            await second.told(1)
            assert [key_of(event) for event in second.published] == [b"k"]
            assert await holder(user) == "standby"

            await second.stop()  # an outage is worse than a broker that cannot be reached: it is taken back

            async def is_taken_back() -> bool:
                return await holder(user) == "holder"

            await wait_until(is_taken_back)


async def test_a_holder_keeps_the_lease_where_no_other_bridge_reaches_the_broker(
    server: RedisServer, user: Redis
) -> None:
    async with Inside(server.port, "holder", limits=QUICK) as first:
        await first.reconciled()
        async with Inside(server.port, "standby", limits=QUICK) as second:
            second.broker.gone.set()
            first.broker.gone.set()

            async def none_is_able() -> bool:
                clock = await user.time()
                until = await user.hget(NAMES.lease, "able_until")
                return until is None or int(until) < clock[0] * 1000

            await wait_until(none_is_able)
            fence = await user.hget(NAMES.lease, "fence")
            await known(user, b"k", 50)
            await wait_until(lambda: user.xlen(NAMES.outbox))
            assert (await holder(user), await user.hget(NAMES.lease, "fence")) == ("holder", fence)
