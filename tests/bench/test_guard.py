"""A small benchmark that guards against large losses: no figure of its own matters, only ratios within one run.

Of processor time, because others share the machine that tests run on; and with wide floors, for the same reason.
"""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.bench.cases import CASES
from tests.bench.machine import machine
from tests.bench.report import FILE, Report, read, tables, write
from tests.bench.runner import Result, run
from tests.support.servers import NatsServer, RedisServer, require

SCALE: Final = 0.05
FLOORS: Final = {
    "processor time: nats-py alone ÷ the bridge's": 0.3,
    "processor time of all: the tutorial's way ÷ ours": 3.0,
}
"""About half of the least that a good run finds."""


@pytest.mark.slow
async def test_no_ratio_has_fallen_far_below_what_it_was(tmp_path: Path) -> None:
    require(RedisServer)
    require(NatsServer)
    told: list[str] = []
    result = await run(CASES["throughput-jetstream"](), SCALE, 1, told.append)
    found = {verdict.what: verdict.value for verdict in result.verdicts}
    low = {what: found[what] for what, floor in FLOORS.items() if found[what] < floor}
    assert not low, "\n".join(told)
    await asyncio.to_thread(_reported, result, tmp_path)


def _reported(result: Result, directory: Path) -> None:
    """All of it can be written, read back, and shown."""
    report = Report(machine(), SCALE, 1, [result], {"encode": 1.0})
    write(report, directory)
    assert {file.name for file in directory.iterdir()} == {FILE, *(f"{chart.name}.svg" for chart in result.charts)}
    assert [len(table.splitlines()) for table in tables(read(directory))] == [
        len(table.splitlines()) for table in tables(report)
    ]
