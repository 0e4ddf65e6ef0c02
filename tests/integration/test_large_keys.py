"""Keys of hundreds of kilobytes: what is sent and received at once is bounded by bytes, and shrinks where need be."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bridge.limits import Limits
from bridge.limits.scaled import KIB, MIB
from tests.support.harness.inside import Inside
from tests.support.harness.published import ids, key_of
from tests.support.harness.user import LAZY
from tests.support.proxy import TO_SERVER, Action, Proxy
from tests.support.proxy.slow_link import SlowLink
from tests.support.redis.commands import redis_ms, user_of
from tests.support.redis.operations import EXPIRED, alike, batch_with
from tests.support.servers import RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

COUNT, LENGTH = 200, 20 * KIB
"""All of it takes twice as long over the link as a command may take."""
BYTES_PER_SECOND = COUNT * LENGTH / 2
BRISK = Limits().scaled(0.2)
FINE = replace(
    BRISK, epoch=replace(BRISK.epoch, batch_bytes=100 * KIB), ledger=replace(BRISK.ledger, reply_bytes=100 * KIB)
)
"""In proportion to that link, what the bridge's own bounds are to one of 10 MB/s."""


def large(count: int, length: int = LENGTH) -> list[bytes]:
    return [b"%06d" % number + bytes(length - 6) for number in range(count)]


_SET_MANY = """
for number = 1, tonumber(ARGV[1]) do
  redis.call('SET', string.format('%06d', number) .. string.rep('x', ARGV[2] - 6), '', 'PX', ARGV[3])
end
"""


async def set_together(user: Redis, keys: Sequence[bytes], ms: int) -> int:
    """Let them all expire in the same moment, which is returned."""
    deadline = await redis_ms(user) + ms
    async with user.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.set(key, b"", pxat=deadline)
        await pipe.execute()
    return deadline


@pytest.mark.slow
async def test_large_keys_that_are_due_at_once_are_delivered_over_a_slow_link(user: Redis, server: RedisServer) -> None:
    keys = large(COUNT)
    async with SlowLink(server.port, BYTES_PER_SECOND) as link, Inside(link.port, limits=FINE) as bridge:
        await bridge.reconciled()
        await set_together(user, keys, 3_000)
        await wait_until(lambda: len(bridge.published) >= COUNT, lambda: f"{len(bridge.published)} of {COUNT}", 60)
        assert {key_of(event) for event in bridge.published} == set(keys)
        assert bridge.telemetry.endings == []


@pytest.mark.parametrize("cut", [Action.CUT, Action.CUT_REPLY], ids=["lost", "applied"])
async def test_a_large_batch_in_doubt_is_cut_and_claims_each_expiration_once(
    cut: Action, proxy: Proxy, user: Redis
) -> None:
    count, length = 200, 3000
    limits = replace(BRISK, epoch=replace(BRISK.epoch, batch_bytes=20 * length, least_batch_bytes=length))
    async with Inside(proxy.port, limits=limits) as bridge:
        await bridge.reconciled()
        # Of more than half as many keys as may be: so it is more than what is tried after a failure.
        large = batch_with(lambda operations: sum(alike(operation, EXPIRED) for operation in operations) > 12)
        doubt = proxy.break_on(TO_SERVER, large, cut)
        await user.eval(_SET_MANY, 0, count, length, 1)  # gone before they can be recorded: each claim is an id
        await doubt.reached()
        await bridge.reconciled(2)
        await bridge.quiet(user)
        found = [key_of(event) for event in bridge.published]
        _, record = await bridge.records(2)
        assert len(found) + record["missed"] == count, "the hints that were in no batch went with the epoch, counted"
        assert len(found) == len(set(found)) == len(set(ids(bridge.published)))
        assert len(bridge.telemetry.endings) == 1


COARSE = replace(
    BRISK,
    epoch=replace(BRISK.epoch, batch_bytes=4 * MIB, batch_keys=1000, found_keys=500, touch_keys=1000),
    ledger=replace(BRISK.ledger, reply_bytes=4 * MIB),
)
"""More at once than the servers of these tests take."""
HALVINGS = 8
"""Of its bytes, until a batch is as small as it gets."""
TIGHT = {
    "query": {"client-query-buffer-limit": "1mb"},
    "bulk": {"proto-max-bulk-len": "1mb"},
    "reply": {"client-output-buffer-limit": "normal 1mb 0 0"},
    "clients": {"maxmemory-clients": "2mb"},
}


@pytest.mark.parametrize("limit", TIGHT)
async def test_where_a_server_closes_connections_with_large_batches_they_get_smaller(
    limit: str, redis_kind: type[RedisServer]
) -> None:
    count, length = 900, 3000
    with redis_kind({**LAZY, **TIGHT[limit]}) as server:
        async with user_of(server) as user, Inside(server.port, limits=COARSE) as bridge:
            await bridge.reconciled()
            # All in one moment, so that they are one batch.
            await user.eval(_SET_MANY, 0, count, length, 4_000)
            missed: list[int] = []

            async def are_told_or_counted() -> bool:
                """A notification that no connection lived to hear is counted, and its key swept if it was recorded."""
                missed[:] = [record["missed"] or 0 for record in await bridge.records(1)]
                return len(bridge.published) + sum(missed) >= count

            await wait_until(
                are_told_or_counted, lambda: f"{count}, {len(bridge.published)} are published, {missed} missed", 60
            )
            names = Counter(key_of(event) for event in bridge.published)
            assert len(names) == len(set(ids(bridge.published))) > count // 3
            assert len(bridge.telemetry.endings) <= 2 * HALVINGS
