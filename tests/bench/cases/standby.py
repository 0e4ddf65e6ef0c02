"""What a bridge that stands by costs: Redis sends it each notification a second time."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart
from tests.bench.stage import staged_with_nats
from tests.bench.usage import Usage
from tests.bench.worker import Worker

PACE: Final = 5_000
SECONDS: Final = 2.0
ALONE, BESIDE = "alone", "with a standby"


async def accompanied(others: int, scale: float) -> Figures:
    """`SET … EX` at an even pace, while that many bridges stand by."""
    async with staged_with_nats() as stage, AsyncExitStack() as stack:
        working = await stack.enter_async_context(stage.bridge())
        await working.ready()
        pids = {"bridge": working.pid, "redis": stage.server.pid}
        for number in range(others):
            other = await stack.enter_async_context(stage.bridge())
            await other.stands_by()
            pids[f"standby_{number}"] = other.pid
        usage = Usage.begin(**pids)
        seconds = SECONDS * min(max(scale, 0.5), 1.0)
        with Worker("generator", port=stage.server.port, kind="set", seconds=seconds, rate=PACE) as generator:
            figures: Figures = await generator.found()
        return {**figures, **usage.per_event(round(figures["events"]))}


class Standby:
    """See `Case`."""

    name = "standby"
    title = "Cost of a standby"
    question = (
        f"Processor time for one of {PACE:,} SET … EX a second, with one bridge, and with another that stands by."
    )
    runs = 3
    seconds = 45.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {ALONE: partial(accompanied, 0, scale), BESIDE: partial(accompanied, 1, scale)}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        alone, beside = medians[ALONE], medians[BESIDE]
        return [
            Verdict("Redis, with a standby ÷ without", beside["redis_cpu_us"] / alone["redis_cpu_us"]),
            Verdict("Redis, for each SET, with a standby", beside["redis_cpu_us"], "µs"),
            Verdict("the standby, for each SET", beside["standby_0_cpu_us"], "µs"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`. The table says it all."""
        return []
