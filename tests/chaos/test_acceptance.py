"""The promise, tried as a whole: processes die while keys expire, and what was sent is what was stored.

Small by default. The environment makes it larger: CHAOS_KEYS (a factor), CHAOS_KILLS, CHAOS_OUTAGE (seconds),
CHAOS_OTHERS (keys that only fill the database). CHAOS_SEED repeats the moments of a run that failed, which tells it.
"""

import os
import random
from collections.abc import Sequence

import pytest

from tests.support.brokers.kafka import KafkaServer
from tests.support.contract import LEDGER
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.deployments.scene import DURABLE, Scene, keys, now_ms
from tests.support.kinds import on_both_kinds
from tests.support.servers import PATIENCE, RedisServer, start, wait_until

FACTOR = float(os.environ.get("CHAOS_KEYS", "1"))
KILLS = int(os.environ.get("CHAOS_KILLS", "5"))
OUTAGE_MS = int(float(os.environ.get("CHAOS_OUTAGE", "10")) * 1000)
OTHERS = int(os.environ.get("CHAOS_OTHERS", "20000"))
SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(1_000_000))

GROUP = 20
"""Keys with the same deadline."""
FIRST_MS, GROUP_MS = 500, 10
"""Until the first deadline, and that much later for each group: by then all are set."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300 + OUTAGE_MS / 1000 + 30 * KILLS)]


async def set_over(deployment: Scene, count: int, span_ms: int) -> list[int]:
    """Set that many keys, which are recorded, and whose deadlines are spread over that time; returns the deadlines."""
    groups = max(int(count / GROUP), 1)
    names = keys(count)
    await deployment.record(names)
    first = now_ms() + FIRST_MS + GROUP_MS * groups
    for group in range(groups):
        ttl_ms = first + span_ms * group // groups - now_ms()
        await deployment.set(names[group::groups], ttl_ms)
    return sorted(deadline for _, deadline in deployment.expected.values())


async def passed(deadlines: Sequence[int], share: float) -> None:
    """Return when that share of the keys is past its deadline."""
    moment = deadlines[min(int(len(deadlines) * share), len(deadlines) - 1)]
    await wait_until(lambda: now_ms() > moment, "a deadline", PATIENCE + OUTAGE_MS / 1000)


async def test_none_of_1500_keys_is_lost_or_stored_twice_when_the_bridge_is_killed_five_times_as_they_expire() -> None:
    try:
        await on_both_kinds(killed_often)
    except ExceptionGroup as error:
        error.add_note(f"CHAOS_SEED={SEED}")
        raise


async def killed_often(kind: type[RedisServer]) -> None:
    """Kill one bridge after the other."""
    chance = random.Random(SEED)
    async with Deployment.of(kind, redis=DURABLE) as deployment:
        bridge = await deployment.ready_bridge(direct=True)
        deadlines = await set_over(deployment, int(1500 * FACTOR), 1500 * KILLS)
        for number in range(KILLS):
            await passed(deadlines, (number + chance.random()) / KILLS)
            bridge.kill()
            if number < KILLS - 1:  # the last one has to wait for the end of the lease itself
                await deployment.expire_lease()
            bridge = await deployment.start_bridge(direct=True)
        await deployment.delivered(2 * PATIENCE)
        await bridge.ready(PATIENCE)


async def test_on_kafka_none_of_1500_keys_is_lost_when_the_bridge_is_killed_five_times_and_the_broker_twice(
    kafka_server: KafkaServer, redis_kind: type[RedisServer]
) -> None:
    chance = random.Random(SEED)
    async with KafkaDeployment.of(redis_kind, kafka_server, redis=DURABLE) as deployment:
        bridge = await deployment.ready_bridge(direct=True)
        deadlines = await set_over(deployment, int(1500 * FACTOR), 3000 * KILLS)
        for number in range(KILLS):
            await passed(deadlines, (number + chance.random()) / KILLS)
            if number in {1, 3}:
                kafka_server.kill()
            bridge.kill()
            await deployment.expire_lease()
            bridge = await deployment.start_bridge(direct=True)
            if not kafka_server.running:
                await start(kafka_server)
        await deployment.delivered(2 * PATIENCE)
        await bridge.ready(PATIENCE)


async def test_none_of_3000_keys_is_lost_in_an_outage_of_the_broker_with_the_bridge_killed_inside_it() -> None:
    await on_both_kinds(outage)


async def outage(kind: type[RedisServer]) -> None:
    """Kill the broker, then the bridge; start the bridge, then the broker."""
    async with Deployment.of(kind, redis=DURABLE) as deployment:
        bridge = await deployment.ready_bridge(direct=True)
        deadlines = await set_over(deployment, int(3000 * FACTOR), OUTAGE_MS + 1000)
        await passed(deadlines, 0.05)
        deployment.nats_server.kill()
        begun = now_ms()
        await passed(deadlines, 0.4)
        bridge.kill()
        bridge = await deployment.start_bridge(direct=True)
        await wait_until(lambda: now_ms() > begun + OUTAGE_MS, "the end of the outage", PATIENCE + OUTAGE_MS / 1000)
        deployment.nats_server.start()
        await deployment.delivered(2 * PATIENCE)
        await bridge.ready(PATIENCE)


async def test_how_late_keys_are_stored_that_expire_among_many_others(
    redis_kind: type[RedisServer], capsys: pytest.CaptureFixture[str]
) -> None:
    async with Deployment.of(redis_kind) as deployment:
        fill = "for i = 1, ARGV[1] do redis.call('SET', 'other:' .. i, '', 'EX', 3600 + i % 3600) end"
        await deployment.redis.eval(fill, 0, OTHERS)
        bridge = await deployment.ready_bridge(direct=True)

        async def all_known() -> bool:
            return await deployment.redis.zcard(LEDGER) == OTHERS

        await wait_until(all_known, "the others in the ledger", PATIENCE)
        await set_over(deployment, int(2000 * FACTOR), 4000)
        stored = await deployment.delivered(2 * PATIENCE)
        assert bridge.running
    lags = sorted(message.stored_ms - (message.deadline_ms or 0) for message in stored)
    assert lags[0] > 0, "a key was announced before its deadline was past"
    p50, p99 = (lags[int(len(lags) * share)] for share in (0.5, 0.99))
    with capsys.disabled():
        print(  # noqa: T201 - a measure is to be seen
            f"\n{redis_kind.distribution}: from the deadline to JetStream, {len(lags)} keys among {OTHERS} others:"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {lags[-1]:.1f} ms"
        )
