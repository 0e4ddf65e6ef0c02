"""What an expiration costs at the rates at which users live: one after the other, recorded long before."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import missing
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart, cost_of
from tests.bench.control import FIGURE, controlled
from tests.bench.figures import percentile
from tests.bench.stage import SUBJECT, in_seconds, staged_with_nats, until
from tests.bench.usage import Usage

BARS: Final = {500: 0.5, 50: 0.7}
"""Expirations a second, and of the processor time that an older bridge took for one, what may be left."""
SECONDS: Final = 6.0
LEAD_SECONDS: Final = 2.0
"""For all keys to be recorded."""


async def at_a_rate(rate: int, seconds: float) -> Figures:
    """Expirations at that rate a second, evenly spread."""
    count, figures = round(rate * seconds), Figures()
    async with staged_with_nats() as stage, stage.bridge() as bridge:
        await bridge.ready()
        begin_ms = in_seconds(LEAD_SECONDS)
        await stage.fill(count, begin_ms, spread_ms=round(seconds * 1000))
        await stage.recorded(count, begin_ms)
        await until(begin_ms - 20)
        usage = Usage.begin(bridge=bridge.pid, redis=stage.server.pid, broker=stage.nats.pid)
        async with controlled(figures):
            await until(begin_ms + seconds * 1000)
        await stage.settled()
        figures |= usage.per_event(count)
        missing(await stage.stored(), count)
        stored = [(json.loads(body), at_ms) for body, at_ms in await stage.read(SUBJECT, count)]
    lags = [at_ms - body["data"]["deadline_ms"] for body, at_ms in stored]
    return {
        "events": count,
        "rate_per_s": rate,
        **figures,
        "lag_p50_ms": percentile(lags, 50),
        "lag_p99_ms": percentile(lags, 99),
    }


class Ordinary:
    """See `Case`."""

    name = "ordinary"
    title = "Ordinary rates"
    question = (
        f"Processor time for one expiration, where {' or '.join(map(str, BARS))} of them a second pass their deadlines,"
        " which were recorded before; and how late each is stored."
    )
    runs = 2
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`. The rates are the question, so the scale does not change them."""
        yield {f"{rate}/s": partial(at_a_rate, rate, max(SECONDS * min(scale, 1.0), 1.0)) for rate in BARS}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        for rate, bar in BARS.items():
            name = f"{rate}/s"
            found = medians[name]
            verdicts += [
                Verdict(f"{name}: the bridge, for each", found["bridge_cpu_us"], "µs", at_most_of_before=bar),
                Verdict(f"{name}: Redis, for each", found["redis_cpu_us"], "µs"),
                Verdict(f"{name}: p50 lag", found["lag_p50_ms"], "ms", at_most=3.0, control=found[FIGURE]),
                Verdict(f"{name}: p99 lag", found["lag_p99_ms"], "ms", at_most=10.0, control=found[FIGURE]),
            ]
        return verdicts

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [cost_of(name, figures) for name, figures in medians.items()]
        return [Chart(self.name, "Ordinary rates: processor time of one expiration", "µs", bars)]
