"""The rules of a failover, as a running bridge keeps them. The test says what the sentinels say."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.errors import NotConnected
from bridge.limits import Limits, WireLimits
from bridge.redis.wire.endpoint import Address
from bridge.redis.wire.sentinel import Sentinels
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import deadlines, ids
from tests.support.harness.user import LAZY, NAMES, known, passed, recorded
from tests.support.proxy import TO_SERVER, Action, Matches, Protocol, Proxy, command
from tests.support.redis.commands import lazily, run, set_for, user_of
from tests.support.redis.operations import claim_of as claim
from tests.support.redis.scripts import script
from tests.support.redis.sentinel import replication
from tests.support.servers import RedisServer, require, wait_until

URL = "redis+sentinel://127.0.0.1:1/service"
LONG_MS = 60_000


class Named:
    """What the sentinels say: a port, or nothing."""

    def __init__(self, port: int) -> None:
        self.port: int | None = port

    async def primary(self) -> Address:
        """Instead of `Sentinels.primary`."""
        if self.port is None:
            raise NotConnected("no sentinel answers")
        return "127.0.0.1", self.port


class Pair:
    """A primary behind a proxy, and its replica."""

    def __init__(
        self, link: Proxy, named: Named, first: Redis, second: Redis, primary: RedisServer, replica: RedisServer
    ) -> None:
        self.link = link
        self.named = named
        self.primary = primary
        self.first = first
        self.second = second
        self.replica = replica

    async def promote(self) -> None:
        """The replica goes its own way."""
        await run(self.second, "REPLICAOF", "NO", "ONE")


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """In step; the sentinels name the primary."""
    require(RedisServer)
    with (
        RedisServer({**LAZY, "repl-diskless-sync-delay": "0"}) as first,
        RedisServer({**LAZY, "replicaof": f"127.0.0.1 {first.port}"}) as second,
    ):

        async def is_in_step() -> bool:
            return (await replication(second)).get("master_link_status") == "up"

        await wait_until(is_in_step, "the replica")
        async with (
            Proxy(first.port, Protocol.RESP) as link,
            user_of(first) as user,
            user_of(second) as user_of_second,
        ):
            named = Named(link.port)
            monkeypatch.setattr(Sentinels, "primary", named.primary)
            await lazily(user_of_second)
            yield Pair(link, named, user, user_of_second, first, second)


@pytest.mark.parametrize("cut", [Action.CUT, Action.CUT_REPLY])
async def test_a_batch_in_doubt_is_not_sent_to_another_server_which_has_the_key_yet(pair: Pair, cut: Action) -> None:
    async with Inside(0, limits=SOON, redis_url=URL) as bridge:
        await bridge.reconciled()
        deadline = await known(pair.first, b"k", 1000)
        await recorded(pair.second, b"k")
        await pair.promote()
        doubt = pair.link.break_on(TO_SERVER, claim(b"k"), cut)
        await doubt.reached()
        pair.named.port = pair.replica.port
        pair.link.refuse()
        await bridge.reconciled(2)
        await bridge.quiet(pair.second)
        assert set(deadlines(bridge.published)) == {deadline}
        assert len(set(ids(bridge.published))) == 1
        (_, record) = await bridge.records(2)
        assert record["node"] == f"127.0.0.1:{pair.replica.port}"


@pytest.mark.parametrize("call", [command(b"XRANGE"), script("settle")], ids=["read", "settle"])
async def test_delivery_waits_for_no_answer_of_a_primary_that_was_frozen_and_replaced(
    pair: Pair, call: Matches
) -> None:
    patient = Limits(wire=WireLimits(command=1000))
    with capture_logs() as log:
        async with Inside(0, redis_url=URL, limits=patient) as bridge:
            await bridge.reconciled()
            asked = pair.link.break_on(TO_SERVER, call, Action.HOLD)
            await known(pair.first, b"k", 1)
            await asked.reached()
            pair.primary.pause()
            asked.release()
            await pair.promote()
            pair.named.port = pair.replica.port
            await bridge.reconciled(2)
            later = await known(pair.second, b"later", 1)
            await passed(pair.second, later)
            await bridge.quiet(pair.second)
            assert later in deadlines(bridge.published)

            async def is_settled() -> bool:
                return await pair.second.xlen(NAMES.outbox) == 0

            await wait_until(is_settled, "the outbox to be settled")
        assert "outbox.unreached" not in {event["event"] for event in log}


async def test_an_epoch_stays_on_its_server_until_another_one_is_named_and_says_that_it_is_a_primary(
    pair: Pair,
) -> None:
    async with Inside(0, limits=SOON, redis_url=URL) as bridge:
        await bridge.reconciled()
        for unsettling in (None, pair.replica.port):  # no sentinel answers; one that is wrong
            pair.named.port = unsettling
            canaries = bridge.telemetry.canaries
            await wait_until(lambda: bridge.telemetry.canaries > canaries + 1)  # noqa: B023 - awaited here
            assert bridge.telemetry.endings == []
        kept = await known(pair.first, b"kept", LONG_MS)
        await recorded(pair.second, b"kept")
        await pair.promote()
        await bridge.ended()
        assert bridge.telemetry.endings == [f"Sentinel names another primary: 127.0.0.1:{pair.replica.port}"]
        await bridge.reconciled(2)

        # The former one still believes to be a primary. Nobody listens to it any more.
        await set_for(pair.first, b"stale", 1)
        later = await set_for(pair.second, b"later", 300)
        await bridge.told(1)
        await passed(pair.second, later)
        await bridge.quiet(pair.second)
        assert deadlines(bridge.published) == [later]
        assert await pair.second.zscore("{expiry-bridge:0:0}:deadlines", b"kept") == kept


async def test_a_primary_that_may_not_write_without_its_replica_is_waited_for(pair: Pair) -> None:
    await run(pair.first, "CONFIG", "SET", "min-replicas-to-write", "1")
    async with Inside(0, limits=SOON, redis_url=URL) as bridge:
        await bridge.reconciled()
        deadline = await known(pair.first, b"k", 1000)
        await recorded(pair.second, b"k")
        await pair.promote()
        await passed(pair.first, deadline)
        await wait_until(lambda: "NOREPLICAS" in bridge.unready.get("subscription", ""))
        assert bridge.published == []
        await run(pair.first, "CONFIG", "SET", "min-replicas-to-write", "0")
        await bridge.reconciled(2)
        await bridge.quiet(pair.first)
        assert deadlines(bridge.published) == [deadline]


async def test_a_standby_follows_the_primary(pair: Pair) -> None:
    async with Inside(0, "holder", limits=SOON, redis_url=URL) as holder:
        await holder.reconciled()  # else either might take the lease
        async with Inside(0, "standby", limits=SOON, redis_url=URL) as standby:
            await wait_until(lambda: "standing by" in standby.unready.get("subscription", ""))
            await holder.kill()
            await pair.promote()
            pair.named.port = pair.replica.port
            await pair.second.hset(NAMES.lease, "until", "0")  # there, nobody has to wait for its end

            async def has_followed() -> bool:
                return await pair.second.hget(NAMES.lease, "holder") == b"standby"

            await wait_until(has_followed)
            await standby.reconciled()
