"""Case 8: whether an expiration costs more, the more keys are recorded."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.cases.throughput_jetstream import bridged
from tests.bench.chart import Chart, cost_of
from tests.bench.figures import median

SIZES: Final = {10_000: 4, 100_000: 2, 1_000_000: 1}
"""Recorded keys, and how often they are measured in one turn: a short burst varies more."""
MOST: Final = 100_000
"""How many of them expire at once: all, up to so many. The others stay."""


async def several(times: int, recorded: int, most: int) -> Figures:
    """The median of so many measurements."""
    count = min(recorded, most)
    return median([await retried(partial(bridged, count, recorded - count)) for _ in range(times)])


class Growth:
    """See `Case`."""

    name = "growth"
    title = "How cost grows"
    question = f"{', '.join(f'{size:,}' for size in SIZES)} recorded keys, of which up to {MOST:,} expire at once."
    runs = 1
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        most = round(MOST * scale)
        yield {f"{size:,}": partial(several, times, round(size * scale), most) for size, times in SIZES.items()}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        costs = {name: figures["bridge_cpu_us"] + figures["redis_cpu_us"] for name, figures in medians.items()}
        rates = {name: figures["rate_per_s"] for name, figures in medians.items()}
        least, *_, most = medians
        return [
            *(Verdict(f"bridge and Redis, {name} keys", cost, "µs") for name, cost in costs.items()),
            Verdict("highest ÷ lowest cost", max(costs.values()) / min(costs.values()), at_most=1.3),
            Verdict(f"rate with {most} ÷ with {least}", rates[most] / rates[least]),
            Verdict(f"memory behind it, {most} keys", medians[most]["memory_mib"], "MiB"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [cost_of(f"{name} keys", figures) for name, figures in medians.items()]
        return [Chart(self.name, "How cost grows: processor time of one expiration", "µs", bars)]
