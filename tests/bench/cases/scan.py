"""Case 5: how fast the keyspace is scanned into the ledger, and what another client of Redis notices of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart
from tests.bench.figures import percentile
from tests.bench.stage import NAMES, JetStreamStage, staged_with_nats
from tests.bench.usage import Usage
from tests.bench.worker import Worker
from tests.servers import wait_until

KEYS: Final = 1_000_000
ALONE_SECONDS: Final = 3.0


async def scanned(count: int) -> Figures:
    """A new bridge before a full Redis: from the first key in the ledger to the last."""
    async with staged_with_nats() as stage:
        await stage.fill_for_long(count)
        with Worker("canary", port=stage.server.port) as canary:
            await canary.ready()
            alone = time.time()
            await asyncio.sleep(ALONE_SECONDS)
            usage = Usage.begin(redis=stage.server.pid)
            async with stage.bridge() as bridge:
                begun, ended = await _recording(stage, count)
                figures = usage.per_event(count) | Usage.of_all(bridge=bridge.pid).per_event(count)
            canary.end()
            answers: list[tuple[float, float]] = await canary.found()
    before = [took for asked, took in answers if alone <= asked < alone + ALONE_SECONDS]
    during = [took for asked, took in answers if begun <= asked < ended]
    return {
        "events": count,
        "rate_per_s": count / (ended - begun),
        **figures,
        "p99_alone_ms": percentile(before, 99),
        "p99_ms": percentile(during, 99),
        "longest_ms": max(during),
    }


async def _recording(stage: JetStreamStage, count: int) -> tuple[float, float]:
    """When the first key was in the ledger, and when all were."""

    async def size() -> int:
        return int(await stage.redis.zcard(NAMES.deadlines))

    await wait_until(size, "the first key in the ledger")
    begun = time.time()
    await stage.recorded(count)
    return begun, time.time()


class Scan:
    """See `Case`."""

    name = "scan"
    title = "Scan"
    question = (
        f"A new bridge scans and records {KEYS:,} keys, while another client of Redis sends one GET after the other."
    )
    runs = 2
    seconds = 45.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {"scan": partial(scanned, round(KEYS * scale))}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        scan = medians["scan"]
        bar = max(3.0, 2 * scan["p99_alone_ms"])
        return [
            Verdict("keys recorded", scan["rate_per_s"], "/s", at_least=150_000),
            Verdict("p99 of another client", scan["p99_ms"], "ms", at_most=bar),
            Verdict("p99 of another client without", scan["p99_alone_ms"], "ms"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        scan = medians["scan"]
        bars = [
            Bar("p99 without", {"redis": scan["p99_alone_ms"]}),
            Bar("p99 while scanned", {"bridge": scan["p99_ms"]}),
            Bar("longest while scanned", {"bridge": scan["longest_ms"]}),
        ]
        return [Chart(self.name, "Scan: how long another client's GET takes", "ms", bars)]
