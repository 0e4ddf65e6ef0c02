"""What values cost: of many keys at once, of a steady rate, and what another client notices of large ones."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from tests.bench.burst import burst, missing, recorded, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart
from tests.bench.control import FIGURE, controlled
from tests.bench.figures import percentile
from tests.bench.stage import KEY, SUBJECT, JetStreamStage, in_seconds, staged_with_nats, until
from tests.bench.usage import Usage
from tests.bench.worker import Worker

KEYS: Final = 100_000
"""With one deadline."""
RATE: Final = 2_000
"""Expirations a second."""
SECONDS: Final = 6.0
LEAD_SECONDS: Final = 3.0
"""For all keys to be recorded."""
CAPTURE_SECONDS: Final = 10.0
"""Between the last key's recording and the deadline: users set their keys long before."""
LARGE_KEYS: Final = 500
LARGE_BYTES: Final = 64_000
WITH: Final = {"values": "*"}


async def at_once(count: int, settings: Mapping[str, str]) -> Figures:
    """Recorded keys with one deadline."""
    longer = CAPTURE_SECONDS * count / KEYS
    async with (
        staged_with_nats() as stage,
        recorded(stage, count, settings=settings, longer=longer) as (bridge, deadline_ms),
    ):
        figures = await burst(stage, bridge, count, deadline_ms)
        missing(await stage.stored(), count)
        return figures | await _shares(stage, count)


async def at_a_rate(rate: int, seconds: float, settings: Mapping[str, str]) -> Figures:
    """Expirations at that rate a second, evenly spread."""
    count, figures = round(rate * seconds), Figures()
    async with staged_with_nats() as stage, stage.bridge(**settings) as bridge:
        await bridge.ready()
        begin_ms = in_seconds(LEAD_SECONDS)
        await stage.fill(count, begin_ms, spread_ms=round(seconds * 1000))
        await stage.recorded(count, begin_ms)
        await until(begin_ms - 20)
        usage = Usage.begin(bridge=bridge.pid, redis=stage.server.pid)
        async with controlled(figures):
            await until(begin_ms + seconds * 1000)
        await stage.settled()
        figures |= usage.per_event(count)
        return {"events": count, "rate_per_s": rate, **figures, **await _shares(stage, count)}


async def large(count: int) -> Figures:
    """Keys with large values, all due at once, while another client sends one GET after the other."""
    control = Figures()
    async with staged_with_nats() as stage, stage.bridge(**WITH) as bridge:
        await bridge.ready()
        deadline_ms = in_seconds(LEAD_SECONDS)
        for number in range(count):
            await stage.redis.set(KEY % number, "x" * LARGE_BYTES, pxat=deadline_ms)
        begun = time.time()
        with Worker("canary", port=stage.server.port) as canary:
            await canary.ready()
            async with controlled(control):
                await until(deadline_ms)
                ended = await stage.settled()
            canary.end()
            answers: list[tuple[float, float]] = await canary.found()
        took = [ms for asked, ms in answers if begun <= asked < ended]
        return {
            "events": count,
            "get_p99_ms": percentile(took, 99),
            "longest_ms": max(took),
            **control,
            **await _shares(stage, count),
        }


async def _shares(stage: JetStreamStage, count: int) -> Figures:
    """How many have values, and exact ones, of all that are stored; and how late they are."""
    stored: list[tuple[dict[str, Any], float]] = [
        (json.loads(body)["data"], at_ms) for body, at_ms in await stage.read(SUBJECT, count)
    ]
    lags = [at_ms - data["deadline_ms"] for data, at_ms in stored if data["deadline_ms"] is not None]
    return {
        "with_value": sum(data.get("value") is not None for data, _ in stored) / count,
        "exact": sum(data.get("value_exact") is True for data, _ in stored) / count,
        "lag_p50_ms": percentile(lags, 50),
        "lag_p99_ms": percentile(lags, 99),
    }


class Values:
    """See `Case`."""

    name = "values"
    title = "Values"
    question = (
        f"{KEYS:,} keys with one deadline, and {RATE:,} expirations a second, without and with `BRIDGE_VALUES`; and"
        f" {LARGE_KEYS} values of {LARGE_BYTES // 1000} kB that are due at once, beside another client's GETs."
    )
    runs = 2
    seconds = 120.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`. A rate is a rate at any scale."""
        count, seconds = round(KEYS * scale), max(SECONDS * min(scale, 1.0), 1.0)
        variants: dict[str, Variant] = {}
        for name, settings in (("without", {}), ("with", WITH)):
            variants[f"at once, {name}"] = partial(retried, partial(at_once, count, settings))
            variants[f"{RATE}/s, {name}"] = partial(retried, partial(at_a_rate, RATE, seconds, settings))
        yield {**variants, "large": partial(large, max(round(LARGE_KEYS * min(scale, 1.0)), 1))}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        at_once_, at_a_rate_, large_ = medians["at once, with"], medians[f"{RATE}/s, with"], medians["large"]
        alone, calm = medians["at once, without"], medians[f"{RATE}/s, without"]
        longer = at_a_rate_["lag_p50_ms"] - calm["lag_p50_ms"]
        return [
            Verdict("at once: share with a value", at_once_["with_value"], at_least=0.99),
            Verdict("at once: share with an exact value", at_once_["exact"]),
            Verdict("at once: rate, with ÷ without", at_once_["rate_per_s"] / alone["rate_per_s"], at_least=0.9),
            Verdict(f"{RATE}/s: share with an exact value", at_a_rate_["exact"], at_least=1.0),
            Verdict(f"{RATE}/s: p50 lag, with less without", longer, "ms", at_most=1.0, control=at_a_rate_[FIGURE]),
            Verdict(
                f"{RATE}/s: the bridge, for each, with ÷ without", at_a_rate_["bridge_cpu_us"] / calm["bridge_cpu_us"]
            ),
            Verdict("large: share with an exact value", large_["exact"]),
            Verdict("large: p99 of another client", large_["get_p99_ms"], "ms", at_most=5.0, control=large_[FIGURE]),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [
            Bar(name, {"bridge": figures["bridge_cpu_us"], "redis": figures["redis_cpu_us"]})
            for name, figures in medians.items()
            if "bridge_cpu_us" in figures
        ]
        return [Chart(self.name, "Values: processor time of one expiration", "µs", bars)]
