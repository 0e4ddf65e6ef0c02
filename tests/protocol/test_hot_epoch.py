"""An epoch that begins without a gap: it has nothing to reconcile, and goes on as if there had been no former one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.contracts import Entry
from bridge.expiration import Expiration, Identity, Via
from bridge.limits import EpochLimits, Limits
from bridge.redis.epoch.attempt import Attempt, listen
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.shard import Runtime, Shard
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.budget import Budget
from bridge.redis.protocol.calls import Claim, Lease
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.schedule import RedisClock
from bridge.redis.wire.commands import Commands
from bridge.settings import Settings
from bridge.tasks import end, run_together
from bridge.telemetry.events import Telemetry
from tests.support.harness.user import NAMES, entry, known, recorded
from tests.support.redis.commands import set_for
from tests.support.servers import RedisServer, wait_until

LONG_MS = 60_000


class Running:
    """An epoch at work."""

    def __init__(self, outbox: Outbox, telemetry: Telemetry, caught_up: list[int]) -> None:
        self.outbox = outbox
        self.telemetry = telemetry
        self.caught_up = caught_up


@pytest.fixture
async def unknown(user: Redis) -> bytes:
    """A key of which the ledger does not know when the epoch begins."""
    await set_for(user, b"unknown", LONG_MS)
    return b"unknown"


@pytest.fixture
async def hot(server: RedisServer, user: Redis, unknown: bytes) -> AsyncIterator[Running]:
    """Such an epoch, at work."""
    await user.config_set("notify-keyspace-events", "Egxe")
    settings = Settings.model_validate({"redis_url": server.url, "scan_interval": 0})
    runtime = Runtime(settings, "hot", SystemClock(), Limits())
    endpoint, telemetry = runtime.endpoint(), Telemetry()
    client = endpoint.client()
    commands = Commands(endpoint)
    ledger = Ledger(commands, NAMES, runtime.limits.ledger)
    identity = Identity(settings.source, 0)
    outbox = Outbox(ledger, identity, settings.outbox_limit, runtime.limits.ledger, telemetry.shard())
    shard = Shard(runtime, NAMES, (), outbox, RedisClock(runtime.clock), telemetry.shard(), Budget(EpochLimits()))
    lease = await ledger.acquire(Claim(runtime.instance))
    assert isinstance(lease, Lease)
    outbox.open()
    ears = await listen(client, endpoint, NAMES, runtime.instance)
    caught_up = list[int]()
    epoch = Epoch(Attempt(shard, endpoint, ledger, lease, ears, Gap("", 0, 0), 0, audited=True), caught_up.append)
    task = asyncio.create_task(run_together(epoch.tasks()))
    try:
        yield Running(outbox, telemetry, caught_up)
        if task.done():
            task.result()
    finally:
        await end([task])
        ears.subscription.end("the test is over")
        commands.close()
        await client.aclose()


async def test_it_records_and_claims_and_neither_walks_nor_scans(hot: Running, user: Redis, unknown: bytes) -> None:
    await wait_until(lambda: hot.caught_up, "the first mark")
    await set_for(user, b"new", LONG_MS)
    await recorded(user, b"new")
    deadline = await known(user, b"due", 1)
    await user.pexpire(b"new", LONG_MS)  # wakes it: it learns of the first deadline
    found: list[Entry] = []

    async def is_claimed() -> bool:
        found.extend(await hot.outbox.next(10, anyway=True))
        return bool(found)

    await wait_until(is_claimed, "the claim")
    (claim,) = [event for one in found for event in one.events]
    assert isinstance(claim, Expiration)
    assert (claim.key, claim.deadline_ms) == (b"due", deadline)
    assert claim.via in {Via.NOTIFICATION, Via.SWEEP}
    assert await entry(user, unknown) is None, "no scan"
    progress = hot.telemetry.metrics.registry.get_sample_value("bridge_scan_progress_ratio", {"shard": "0"})
    assert progress == 1, "or an alert says that a scan is slow"


async def test_whatever_can_fail_comes_before_the_subscription_which_nobody_would_end(
    server: RedisServer, user: Redis
) -> None:
    chosen = Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", redis_backlog="read")
    runtime = Runtime(chosen, "inside", SystemClock(), Limits())
    endpoint = runtime.endpoint()
    client = endpoint.client()
    await user.config_set("slowlog-log-slower-than", 0)
    try:
        ears = await listen(client, endpoint, NAMES, runtime.instance)
        ears.subscription.end("it is over")
    finally:
        await client.aclose()
    said = [entry["command"].upper() for entry in reversed(await user.slowlog_get(100))]
    words = [command.split()[0] for command in said]
    assert ears.word
    assert b"CONFIG GET LAZYFREE-LAZY-EXPIRE" in said[: words.index(b"SUBSCRIBE")]
