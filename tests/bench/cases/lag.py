"""Case 3: how late an expiration is, with more and more other keys that hold a TTL."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart, number
from tests.bench.control import FIGURE as CONTROL
from tests.bench.control import controlled
from tests.bench.figures import percentile
from tests.bench.probes import TTL_SECONDS, Probes
from tests.bench.stage import JetStreamStage, Stage, staged_with_nats
from tests.bench.worker import Worker
from tests.support.servers import wait_until

OTHERS: Final = (0, 10_000, 100_000, 1_000_000)
KEYS: Final = 1_000
OWN_KEYS: Final = 400
"""Of those whose own notifications are waited for."""
RATE: Final = 200
"""Keys a second that are set, and expire."""
PATIENCE_SECONDS: Final = 3.0
"""For Redis's own notifications. One that has not come by then counts as so late, at least."""
WRITES: Final = 5_000
CONTROL_SECONDS: Final = 2.0
"""Within which the control begins: the writes go on for so much longer than the keys take."""
BESIDE: Final = f"beside {WRITES:,} SET … EX a second"
EXPIRED: Final = "__keyevent@0__:expired"


async def own_lags(stage: Stage, count: int) -> list[float]:
    """Milliseconds from deadline to Redis's own notification: what an independent subscriber sees, without a bridge."""
    await stage.redis.config_set("notify-keyspace-events", "Ex")
    heard: dict[str, float] = {}
    notifications = stage.redis.pubsub()
    await notifications.subscribe(EXPIRED)

    async def listen() -> None:
        async for message in notifications.listen():
            if message["type"] == "message":
                heard[message["data"].decode()] = time.time() * 1000

    listening = asyncio.create_task(listen())
    probes = Probes("own", RATE)
    await probes.set(stage.redis, count)
    with suppress(TimeoutError):
        await wait_until(lambda: len(heard) >= count, timeout=PATIENCE_SECONDS)
    listening.cancel()
    await notifications.aclose()  # type: ignore[no-untyped-call]
    await stage.redis.delete(*probes.deadlines)  # what Redis has not expired by now
    given_up = time.time() * 1000
    return [heard.get(key, given_up) - deadline for key, deadline in probes.deadlines.items()]


async def bridged_lags(
    stage: JetStreamStage, others: int, count: int, figures: Figures, writes: Worker | None = None
) -> list[float]:
    """Milliseconds from deadline to the broker's own timestamp; the control goes into `figures`.

    Once the bridge is ready, `writes` begin. They go on for longer than the keys take.
    """
    async with stage.bridge() as bridge:
        await bridge.ready()
        await stage.recorded(others)
        probes = Probes("lag", RATE)
        with writes or nullcontext():
            async with controlled(figures):
                await probes.set(stage.redis, count)
            if writes:
                figures["writes_per_s"] = (await writes.found())["rate_per_s"]
        return await probes.lags(stage)


async def measured(others: int, count: int, own_count: int) -> Figures:
    """Both, one after the other, on the same keys."""
    figures = Figures()
    async with staged_with_nats() as stage:
        await stage.fill_for_long(others)
        own = await own_lags(stage, own_count)
        bridged = await bridged_lags(stage, others, count, figures)
    return {
        "bridge_p50_ms": percentile(bridged, 50),
        "bridge_p99_ms": percentile(bridged, 99),
        "own_p50_ms": percentile(own, 50),
        "own_p99_ms": percentile(own, 99),
        **figures,
    }


async def beside_writes(count: int) -> Figures:
    """With the bridge, while others write."""
    figures = Figures()
    async with staged_with_nats() as stage:
        seconds = count / RATE + TTL_SECONDS + CONTROL_SECONDS
        writes = Worker("generator", port=stage.server.port, kind="set", seconds=seconds, rate=WRITES)
        bridged = await bridged_lags(stage, 0, count, figures, writes)
    return {"bridge_p50_ms": percentile(bridged, 50), "bridge_p99_ms": percentile(bridged, 99), **figures}


class Lag:
    """See `Case`."""

    name = "lag"
    title = "Lag"
    question = (
        f"From the deadline to the broker's timestamp, {RATE} keys a second, with up to {OTHERS[-1]:,} other keys that"
        f" have a TTL; beside Redis's own notifications, without a bridge. And with the bridge alone, {BESIDE}."
    )
    runs = 2
    seconds = 150.0

    def __init__(self) -> None:
        self._others: Sequence[int] = OTHERS

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        self._others = list(dict.fromkeys(round(others * scale) for others in OTHERS))
        count, own = (max(round(keys * scale), RATE) for keys in (KEYS, OWN_KEYS))
        yield {
            **{f"{others:,} others": partial(measured, others, count, own) for others in self._others},
            BESIDE: partial(beside_writes, count),
        }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        longest = PATIENCE_SECONDS * 1000
        for name, figures in medians.items():
            control = figures.get(CONTROL)
            verdicts += [
                Verdict(f"p50, {name}", figures["bridge_p50_ms"], "ms", at_most=3.0, control=control),
                Verdict(f"p99, {name}", figures["bridge_p99_ms"], "ms", at_most=10.0, control=control),
            ]
            if (own := figures.get("own_p50_ms")) is not None:
                verdicts.append(Verdict(f"Redis's own p50, {name}", min(own, longest), "ms", beyond=own >= longest))
            if (writes := figures.get("writes_per_s")) is not None:
                verdicts.append(Verdict(f"pace kept, {name}", writes / WRITES))
        p50s = [figures["bridge_p50_ms"] for figures in medians.values() if "own_p50_ms" in figures]
        return [*verdicts, Verdict("p50, highest ÷ lowest", max(p50s) / min(p50s))]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = []
        for name, figures in medians.items():
            own = figures.get("own_p50_ms", 0.0)
            said = f"> {PATIENCE_SECONDS:.0f} s" if own >= PATIENCE_SECONDS * 1000 else f"{number(own)} ms"
            bars += [
                Bar(f"{name}: p50", {"bridge": figures["bridge_p50_ms"]}),
                Bar(f"{name}: p99", {"bridge": figures["bridge_p99_ms"]}),
                *([Bar(f"{name}: Redis alone", {"redis": own}, said)] if own else []),
            ]
        return [
            Chart(self.name, "Lag, p50 and p99, and p50 of Redis alone (logarithmic)", "ms", bars, logarithmic=True)
        ]
