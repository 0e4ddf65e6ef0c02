"""Everything at once: a writer with its book, two bridges, and a driver that strikes whatever there is.

What is announced has to be what the book says (`judgement.py`), no bridge may end by itself, or log an error that has
no reason, and none may take more memory than it is allowed.

Short by default. CHAOS_SECONDS makes each test go on for so long; CHAOS_SEED repeats the choices of a run, though not
their timing, which is the servers' own; CHAOS_TOPOLOGY chooses what it goes on (`cases.py`). `make chaos` runs nothing
but these, on everything.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.tasks import end
from tests.chaos.book import Book
from tests.chaos.cases import CASES, SECONDS, SEED, chosen
from tests.chaos.driver import Driver
from tests.chaos.ground import Ground
from tests.chaos.judgement import Verdict, judge
from tests.chaos.logs import errors
from tests.chaos.topology import Topology
from tests.chaos.writer import Writer
from tests.support.brokers.kafka import KafkaServer
from tests.support.deployments.scene import Scene, now_ms
from tests.support.servers import PATIENCE, wait_until

MOST_MIB = 160
"""That a bridge may ever have resident."""
LAST_MS = 300
"""How long the last key lives."""
ALL_SEEN_MS = 3_000
"""Within which a bridge notices that notifications were missed: the canary's time, and more than the audit's."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240 + 2 * SECONDS)]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.kafka] if case == "kafka" else []) for case in chosen()]
)
async def test_whatever_strikes_every_expiration_in_the_book_is_announced_or_counted_and_nothing_else_is(
    case: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kafka() -> KafkaServer:
        server: KafkaServer = request.getfixturevalue("kafka_server")
        return server

    async with CASES[case](kafka) as (topology, faults):
        servers = f"{topology.scene.redis_server.name} and {topology.scene.broker.name}"
        head = f"CHAOS_TOPOLOGY={case} CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}, on {servers}"
        with capsys.disabled():
            print(f"\n{head}", flush=True)  # noqa: T201 - to be seen, also where the run never ends
        driver = Driver(topology, faults, random.Random(f"driver {case} {SEED}"))
        try:
            verdict = await strike(topology, driver, random.Random(f"writer {case} {SEED}"))
        except Exception as error:
            error.add_note(f"{head}; see {tmp_path}")
            raise
        finally:
            keep(topology.scene, driver, tmp_path)
    with capsys.disabled():
        print(table(driver, verdict))  # noqa: T201 - likewise
    violations = verdict.violations
    (tmp_path / "violations").write_text("\n\n".join(violations))
    assert not violations, "\n".join([f"{head}: {len(violations)} violations; see {tmp_path}", *violations[:5]])
    assert driver.struck, "no fault"
    assert verdict.counts["expirations that were recorded"] > SECONDS, "too few to tell anything"


async def strike(topology: Topology[Scene], driver: Driver, chance: random.Random) -> Verdict:
    """Write and strike, fix all, wait until it is quiet, and judge."""
    scene, writer = topology.scene, Writer(topology, chance)
    await scene.ready_bridge()
    await scene.start_bridge()
    async with watched(driver):
        while not (driver.struck and recorded(topology.book) > SECONDS):  # a busy machine needs longer for that
            async with asyncio.TaskGroup() as both:
                both.create_task(driver.run(SECONDS), name="driver")
                both.create_task(writer.run(SECONDS), name="writer")
        await quiet(topology, writer)
    for bridge in scene.bridges:
        assert await bridge.stop(PATIENCE) == 0, bridge.log()
    await writer.finish()
    ground = Ground(topology.place, topology.places, topology.upheavals)
    stored, gaps = await scene.stored() or [], await scene.gaps()
    verdict = judge(topology.book, stored, gaps, may_copy=scene.may_copy, ground=ground)
    verdict.violations += [*driver.target.ends, *errors(scene)]
    if driver.most_kib > MOST_MIB * 1024:
        verdict.violations.append(f"a bridge had {driver.most_kib} KiB resident")
    return verdict


def recorded(book: Book) -> int:
    """How many lives that the ledger knew of have expired, or are to."""
    lives = [life for history in book.histories.values() if not history.doubtful for life in history.lives]
    return sum(life.recorded and life.ended_ms is None for life in lives)


@asynccontextmanager
async def watched(driver: Driver) -> AsyncIterator[None]:
    """Have the bridges looked after."""
    task = asyncio.create_task(driver.watch(), name="watch")
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        await end([task])


async def quiet(topology: Topology[Scene], writer: Writer) -> None:
    """Return when every deadline is past, and what there is to say is said: all gaps are closed, and published.

    All is fixed. Whatever a bridge has not noticed yet, it notices in this time: then it begins anew, and so do we.
    """

    async def fences() -> dict[str, str]:
        return {name: ledger.fence for name, ledger in (await topology.state()).items()}

    while True:
        fixed_ms, before = now_ms(), await fences()
        await writer.set(LAST_MS)
        await writer.past()

        async def is_quiet(fixed_ms: int = fixed_ms, before: object = before) -> bool:
            ledgers = await topology.state()
            if {name: ledger.fence for name, ledger in ledgers.items()} != before:
                return True
            seen = all(ledger.forsaken or ledger.seen_ms > fixed_ms + ALL_SEEN_MS for ledger in ledgers.values())
            return seen and not any(ledger.waiting for ledger in ledgers.values())

        await wait_until(is_quiet, topology.logs, 2 * PATIENCE)
        if await fences() == before:
            return


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
