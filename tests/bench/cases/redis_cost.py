"""Case 6: what the bridge takes from the users' Redis: throughput of their own writes, and memory."""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart, cost_of
from tests.bench.redis_benchmark import CONNECTIONS, RedisBenchmark
from tests.bench.stage import KEY, NAMES, Stage, staged_with_nats
from tests.bench.usage import Usage
from tests.bench.worker import Worker

FLAGS: Final = "Egxe"
"""Those that the bridge needs."""
COLUMNS: Final = ("alone", "notifications", "bridge")
FULL, PIPELINED, PACED, SLOW = "full speed", "in pipelines", "5,000/s", "500/s"
PACES: Final = {PIPELINED: 0, PACED: 5_000, SLOW: 500}
SECONDS: Final = {PIPELINED: 1.5, PACED: 1.5, SLOW: 3.0}
KEPT: Final = "500/s, kept on disk"
"""With an append-only file."""
COUNT: Final = 150_000
"""At full speed."""
KEYS: Final = 200_000
KEY_BYTES: Final = len(KEY % 0)


async def loaded(column: str, speed: str, scale: float) -> Figures:
    """`SET … EX` of ever new keys, from one process, while somebody listens or not."""
    scale = min(max(scale, 0.5), 1.0)
    async with staged_with_nats(appendonly=speed == KEPT) as stage:
        if column == "alone":
            return await _load(stage, speed, scale)
        if column == "notifications":
            await stage.redis.config_set("notify-keyspace-events", FLAGS)
            with Worker("listener", port=stage.server.port) as listener:
                await listener.ready()
                return await _load(stage, speed, scale)
        async with stage.bridge() as bridge:
            await bridge.ready()
            figures = await _load(stage, speed, scale, bridge=bridge.pid)
            recorded = int(await stage.redis.zcard(NAMES.deadlines))
            gaps = await bridge.metric("bridge_gaps_total") - 1
            return {**figures, "recorded_by_then": recorded / figures["events"], "gaps": gaps}


async def _load(stage: Stage, speed: str, scale: float, **pids: int) -> Figures:
    usage = Usage.begin(redis=stage.server.pid, **pids)
    if speed == FULL:
        with RedisBenchmark(stage.server.port, round(COUNT * scale)) as load:
            found = await load.found()
        return {**found, **usage.per_event(round(found["events"]))}
    kept = await _kept_bytes(stage)
    paced = SLOW if speed == KEPT else speed
    rate, seconds = PACES[paced], SECONDS[paced] * scale
    with Worker("generator", port=stage.server.port, kind="set", seconds=seconds, rate=rate) as generator:
        figures: Figures = await generator.found()
    aof_bytes = (await _kept_bytes(stage) - kept) / figures["events"]
    return {**figures, **usage.per_event(round(figures["events"])), "aof_bytes": aof_bytes}


async def _kept_bytes(stage: Stage) -> int:
    """Of the append-only file; 0 where there is none."""
    return int((await stage.redis.info("persistence")).get("aof_current_size", 0))


async def remembered(count: int) -> Figures:
    """Redis's memory for one recorded key: that of the ledger, and by how much all of its memory grew."""
    async with staged_with_nats() as stage:
        await stage.fill_for_long(count)
        before = (await stage.redis.info("memory"))["used_memory"]
        async with stage.bridge() as bridge:
            await bridge.ready()
            await stage.recorded(count)
            await bridge.stop()
        after = (await stage.redis.info("memory"))["used_memory"]
        ledger = await stage.redis.memory_usage(NAMES.deadlines, samples=0) or 0
    return {"ledger_bytes": ledger / count, "grown_bytes": (after - before) / count}


class RedisCost:
    """See `Case`."""

    name = "redis-cost"
    title = "Cost for Redis"
    question = (
        "SET … EX of ever new keys: with Redis alone, with notifications and a subscriber that throws them away, with a"
        f" bridge. By {CONNECTIONS} connections of redis-benchmark, as fast as it goes; by eight in pipelines of 16, as"
        f" fast as Redis goes; and 5,000 or 500 a second. Memory: {KEYS:,} recorded keys of {KEY_BYTES} bytes. On disk:"
        " what the append-only file grows by for each SET."
    )
    runs = 3
    seconds = 76.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        turns = [*itertools.product((FULL, PIPELINED, PACED, SLOW), COLUMNS), (KEPT, "alone"), (KEPT, "bridge")]
        yield {
            **{f"{speed}, {column}": partial(loaded, column, speed, scale) for speed, column in turns},
            "memory": partial(remembered, round(KEYS * scale)),
        }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        for speed, bar in ((FULL, 0.62), (PIPELINED, None), (PACED, 0.97)):
            alone, notified, bridged = (medians[f"{speed}, {column}"] for column in COLUMNS)
            rate, cost = alone["rate_per_s"], alone["redis_cpu_us"]
            verdicts += [
                Verdict(f"{speed}: with the bridge ÷ without", bridged["rate_per_s"] / rate, at_least=bar),
                Verdict(f"{speed}: with notifications ÷ without", notified["rate_per_s"] / rate),
                Verdict(f"{speed}: Redis's processor time without ÷ with the bridge", cost / bridged["redis_cpu_us"]),
                Verdict(f"{speed}: share recorded when the load ended", bridged["recorded_by_then"]),
                Verdict(f"{speed}: p99 of the writes, with the bridge", bridged["p99_ms"], "ms"),
                Verdict(f"{speed}: p99 of the writes, without", alone["p99_ms"], "ms"),
            ]
        for speed, bar in ((PACED, 1.8), (SLOW, 2.2)):
            notified, bridged = (medians[f"{speed}, {column}"] for column in ("notifications", "bridge"))
            ratio = bridged["redis_cpu_us"] / notified["redis_cpu_us"]
            most = 0.4 if speed == PACED else None
            verdicts += [
                Verdict(f"{speed}: Redis's processor time, bridge ÷ notifications", ratio, at_most=bar),
                Verdict(f"{speed}: the bridge, for each SET", bridged["bridge_cpu_us"], "µs", at_most_of_before=most),
            ]
        kept, unaccompanied = (medians[f"{KEPT}, {column}"]["aof_bytes"] for column in ("bridge", "alone"))
        memory = medians["memory"]
        return [
            *verdicts,
            Verdict("append-only file, with the bridge", kept, "bytes a SET"),
            Verdict("append-only file, with the bridge ÷ without", kept / unaccompanied, at_most=2.7),
            Verdict("memory of one recorded key", memory["ledger_bytes"], "bytes", at_most=KEY_BYTES + 110),
            Verdict("growth of Redis's memory", memory["grown_bytes"], "bytes a key"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        rates = [Bar(column, {"redis": medians[f"{FULL}, {column}"]["rate_per_s"]}) for column in COLUMNS]
        costs = [cost_of(column, medians[f"{FULL}, {column}"]) for column in COLUMNS]
        return [
            Chart(self.name, "Cost for Redis: SET … EX at full speed", "/s", rates),
            Chart(f"{self.name}-cpu", "Cost for Redis: processor time of one SET … EX", "µs", costs),
        ]
