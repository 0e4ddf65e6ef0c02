"""Everything at once: a writer with its book, two bridges, and a driver that strikes whatever there is.

What is announced has to be what the book says (`judgement.py`), no bridge may end by itself, or log an error that has
no reason, and none may take more memory than it is allowed.

Short by default. CHAOS_SECONDS makes each test go on for so long; CHAOS_SEED repeats the choices of a run, though not
their timing, which is the servers' own. `make chaos` runs nothing but these.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from bridge.tasks import end
from tests.chaos.driver import CALM, Driver
from tests.chaos.judgement import Verdict, judge
from tests.chaos.writer import Writer
from tests.deployment import DURABLE, KINDS, PATIENCE, Deployment, KafkaDeployment, Scene, now_ms
from tests.integration.test_journey import LEASE, LEDGER, OUTBOX
from tests.servers import wait_until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(1_000_000))
MOST_MIB = 160
"""That a bridge may ever have resident."""
SETTINGS = {"BRIDGE_OUTBOX_LIMIT": "300"}
"""Soon reached while the broker is away."""
EXPECTED_ERRORS = {"outbox.filled", "audit.distrusted"}
"""The latter where the notifications were switched off again and again."""
LAST_MS = 300
"""How long the last key lives."""
ALL_SEEN_MS = 3_000
"""Within which a bridge notices that notifications were missed: the canary's time, and more than the audit's."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180 + 2 * SECONDS)]


BROKERS = ("jetstream", "kafka")
KINDS_IN_TURN = dict(zip(BROKERS, random.Random(SEED).sample(KINDS, len(BROKERS)), strict=True))
"""A run with both brokers has both kinds of Redis, too; which goes with which is the seed's choice."""


@pytest.fixture(params=BROKERS)
def deployment(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Scene]:
    """Not started yet."""
    kind = KINDS_IN_TURN[request.param]
    if request.param == "kafka":
        return KafkaDeployment.of(kind, request.getfixturevalue("kafka_server"), redis=DURABLE, settings=SETTINGS)
    return Deployment.of(kind, redis=DURABLE, settings=SETTINGS)


async def test_whatever_strikes_every_expiration_in_the_book_is_announced_or_counted_and_nothing_else_is(
    deployment: AbstractAsyncContextManager[Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with deployment as scene:
        head = f"{scene.redis_server.name} and {scene.broker.name}, CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}"
        with capsys.disabled():
            print(f"\n{head}", flush=True)  # noqa: T201 - to be seen, also where the run never ends
        driver = Driver(scene, random.Random(f"driver {scene.broker.name} {SEED}"))
        try:
            verdict = await strike(scene, driver)
        except Exception as error:
            error.add_note(f"{head}; see {tmp_path}")
            raise
        finally:
            keep(scene, driver, tmp_path)
    with capsys.disabled():
        print(table(driver, verdict))  # noqa: T201 - likewise
    violations = verdict.violations
    (tmp_path / "violations").write_text("\n\n".join(violations))
    assert not violations, "\n".join([f"{head}: {len(violations)} violations; see {tmp_path}", *violations[:5]])
    assert driver.struck or SECONDS <= CALM, "no fault"
    assert verdict.counts["expirations that were recorded"] > 5 * SECONDS, "too few to tell anything"


async def strike(scene: Scene, driver: Driver) -> Verdict:
    """Write and strike, mend all, wait until it is quiet, and judge."""
    async with Writer(scene.redis_server, random.Random(f"writer {scene.broker.name} {SEED}")) as writer:
        await scene.ready_bridge()
        await scene.start_bridge()
        async with watched(driver):
            async with asyncio.TaskGroup() as both:
                both.create_task(driver.run(SECONDS), name="driver")
                both.create_task(writer.run(SECONDS), name="writer")
            await quiet(scene, writer)
        for bridge in scene.bridges:
            assert await bridge.stop(PATIENCE) == 0, bridge.log()
        await writer.finish()
    verdict = judge(writer.book, await scene.stored() or [], await scene.gaps(), may_copy=scene.may_copy)
    verdict.violations += [*driver.target.ends, *errors(scene)]
    if driver.most_kib > MOST_MIB * 1024:
        verdict.violations.append(f"a bridge had {driver.most_kib} KiB resident")
    return verdict


@asynccontextmanager
async def watched(driver: Driver) -> AsyncIterator[None]:
    """Have the bridges looked after."""
    task = asyncio.create_task(driver.watch(), name="watch")
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        await end([task])


async def quiet(scene: Scene, writer: Writer) -> None:
    """Return when every deadline is past, and what there is to say is said: all gaps are closed, and published.

    All is mended. Whatever a bridge has not noticed yet, it notices in this time: then it begins anew, and so do we.
    """
    while True:
        mended_ms, fence = now_ms(), await scene.redis.hget(LEASE, "fence")
        await writer.set(LAST_MS)
        await writer.past()

        async def is_quiet(mended_ms: int = mended_ms, fence: object = fence) -> bool:
            lease = await scene.redis.hgetall(LEASE)
            if lease["fence"] != fence:
                return True
            return (
                int(lease.get("seen_ms") or 0) > mended_ms + ALL_SEEN_MS
                and lease["depth"] == "0"
                and await scene.redis.xlen(OUTBOX) == 0
                and await scene.redis.zcount(LEDGER, "-inf", now_ms() - 1_000) == 0
            )

        await wait_until(is_quiet, lambda: "\n".join(bridge.log() for bridge in scene.bridges), 2 * PATIENCE)
        if await scene.redis.hget(LEASE, "fence") == fence:
            return


def errors(scene: Scene) -> Iterator[str]:
    """What the bridges logged and should not have."""
    for bridge in scene.bridges:
        for line in bridge.log(1_000_000).splitlines():
            told = json.loads(line) if line.startswith("{") else {"level": "error", "event": line}
            if told["level"] in {"error", "critical"} and told["event"] not in EXPECTED_ERRORS:
                yield f"logged: {line}"


def keep(scene: Scene, driver: Driver, directory: Path) -> None:
    """Leave what is needed to understand a failure."""
    (directory / "faults").write_text("\n".join(driver.diary))
    for number, bridge in enumerate(scene.bridges):
        (directory / f"bridge-{number}.log").write_text(bridge.log(1_000_000))


def table(driver: Driver, verdict: Verdict) -> str:
    """What was done, and what came of it."""
    rows = {**dict(sorted(driver.struck.items())), "faults": sum(driver.struck.values())}
    rows |= {**verdict.counts, "MiB resident at most": driver.most_kib // 1024, "violations": len(verdict.violations)}
    return "\n".join(f"{count:8} {name}" for name, count in rows.items())
