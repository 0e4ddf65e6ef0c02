"""Case 5: how fast the keyspace is scanned into the ledger, and what another client of Redis notices of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart
from tests.bench.control import FIGURE as CONTROL
from tests.bench.control import controlled
from tests.bench.figures import percentile
from tests.bench.stage import PATIENCE, BareBridge, staged_with_nats
from tests.bench.usage import Usage
from tests.bench.worker import Worker
from tests.support.servers import wait_until

KEYS: Final = 1_000_000
ALONE_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = "1"
"""Between two scans."""


async def scanned(count: int) -> Figures:
    """A new bridge before a full Redis, which has all to record; and its next scan, which finds what is recorded."""
    control = Figures()
    async with staged_with_nats() as stage:
        await stage.fill_for_long(count)
        with Worker("canary", port=stage.server.port) as canary:
            await canary.ready()
            alone = time.time()
            await asyncio.sleep(ALONE_SECONDS)
            async with stage.bridge(scan_interval=PAUSE_SECONDS) as bridge:
                first = await _scan(bridge, 1)
                await wait_until(partial(_has_begun, bridge), "the next scan", PATIENCE)
                usage = Usage.begin(redis=stage.server.pid, bridge=bridge.pid)
                async with controlled(control):
                    second = await _scan(bridge, 2)
                figures = usage.per_event(count)
            canary.end()
            answers: list[tuple[float, float]] = await canary.found()
    before = [took for asked, took in answers if alone <= asked < alone + ALONE_SECONDS]
    found = {"events": count, "rate_per_s": count / second.seconds, **figures, **control}
    found |= {"recorded_per_s": count / first.seconds, "p99_alone_ms": percentile(before, 99)}
    for name, scan in (("first_", first), ("", second)):
        during = [took for asked, took in answers if scan.begun <= asked < scan.ended]
        found |= {f"{name}p99_ms": percentile(during, 99), f"{name}longest_ms": max(during)}
    return found


@dataclass(frozen=True)
class Span:
    """When it was, Unix time in seconds."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.begun


async def _scan(bridge: BareBridge, number: int) -> Span:
    """That scan, once it is done, by what the bridge logs of it."""

    def lines() -> list[dict[str, Any]]:
        logged = map(json.loads, bridge.log(1_000_000).splitlines())
        return [line for line in logged if line["event"] == "scan.completed"]

    await wait_until(lambda: len(lines()) >= number, f"scan {number}", PATIENCE)
    line = lines()[number - 1]
    ended = datetime.fromisoformat(line["timestamp"]).timestamp()
    return Span(ended - line["seconds"], ended)


async def _has_begun(bridge: BareBridge) -> bool:
    """Whether a scan is under way."""
    return await bridge.metric("bridge_scan_progress_ratio") < 1


class Scan:
    """See `Case`."""

    name = "scan"
    title = "Scan"
    question = (
        f"{KEYS:,} keys: the first scan of a new bridge, which records them all, and the next one, which finds them"
        " recorded; meanwhile another client of Redis sends one GET after the other."
    )
    runs = 2
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {"scan": partial(scanned, round(KEYS * scale))}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        scan = medians["scan"]
        bar = max(2.0, 2 * scan["p99_alone_ms"])
        return [
            Verdict("keys scanned", scan["rate_per_s"], "/s", at_least=130_000),
            Verdict("keys scanned and recorded, at the first start", scan["recorded_per_s"], "/s"),
            Verdict("p99 of another client", scan["p99_ms"], "ms", at_most=bar, control=scan[CONTROL]),
            Verdict("p99 of another client, at the first start", scan["first_p99_ms"], "ms"),
            Verdict("p99 of another client without", scan["p99_alone_ms"], "ms"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        scan = medians["scan"]
        bars = [
            Bar("p99 without", {"redis": scan["p99_alone_ms"]}),
            Bar("p99 while scanned", {"bridge": scan["p99_ms"]}),
            Bar("p99 while recorded", {"bridge": scan["first_p99_ms"]}),
            Bar("longest while scanned", {"bridge": scan["longest_ms"]}),
        ]
        return [Chart(self.name, "Scan: how long another client's GET takes", "ms", bars)]
