"""Case 3: how late an expiration is, with more and more other keys that hold a TTL."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart, number
from tests.bench.figures import percentile
from tests.bench.probes import Probes
from tests.bench.stage import JetStreamStage, Stage, staged_with_nats
from tests.support.servers import wait_until

OTHERS: Final = (0, 10_000, 100_000, 1_000_000)
KEYS: Final = 1_000
OWN_KEYS: Final = 400
"""Of those whose own notifications are waited for."""
RATE: Final = 200
"""Keys a second that are set, and expire."""
PATIENCE_SECONDS: Final = 3.0
"""For Redis's own notifications. One that has not come by then counts as so late, at least."""
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


async def bridged_lags(stage: JetStreamStage, others: int, count: int) -> list[float]:
    """Milliseconds from deadline to the broker's own timestamp."""
    async with stage.bridge() as bridge:
        await bridge.ready()
        await stage.recorded(others)
        probes = Probes("lag", RATE)
        await probes.set(stage.redis, count)
        return await probes.lags(stage)


async def measured(others: int, count: int, own_count: int) -> Figures:
    """Both, one after the other, on the same keys."""
    async with staged_with_nats() as stage:
        await stage.fill_for_long(others)
        own = await own_lags(stage, own_count)
        bridged = await bridged_lags(stage, others, count)
    return {
        "bridge_p50_ms": percentile(bridged, 50),
        "bridge_p99_ms": percentile(bridged, 99),
        "own_p50_ms": percentile(own, 50),
        "own_p99_ms": percentile(own, 99),
    }


class Lag:
    """See `Case`."""

    name = "lag"
    title = "Lag"
    question = (
        f"From the deadline to the broker's timestamp, {RATE} keys a second, with so many other keys that hold a TTL;"
        " beside Redis's own notifications, without a bridge."
    )
    runs = 2
    seconds = 132.0

    def __init__(self) -> None:
        self._others: Sequence[int] = OTHERS

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        self._others = list(dict.fromkeys(round(others * scale) for others in OTHERS))
        count, own = (max(round(keys * scale), RATE) for keys in (KEYS, OWN_KEYS))
        yield {f"{others:,} others": partial(measured, others, count, own) for others in self._others}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        longest = PATIENCE_SECONDS * 1000
        for name, figures in medians.items():
            own = figures["own_p50_ms"]
            verdicts += [
                Verdict(f"p50, {name}", figures["bridge_p50_ms"], "ms", at_most=5.0),
                Verdict(f"p99, {name}", figures["bridge_p99_ms"], "ms", at_most=20.0),
                Verdict(f"Redis's own p50, {name}", min(own, longest), "ms", beyond=own >= longest),
            ]
        p50s = [figures["bridge_p50_ms"] for figures in medians.values()]
        return [*verdicts, Verdict("p50, highest ÷ lowest", max(p50s) / min(p50s))]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = []
        for name, figures in medians.items():
            own = figures["own_p50_ms"]
            said = f"> {PATIENCE_SECONDS:.0f} s" if own >= PATIENCE_SECONDS * 1000 else f"{number(own)} ms"
            bars += [
                Bar(f"{name}: p50", {"bridge": figures["bridge_p50_ms"]}),
                Bar(f"{name}: p99", {"bridge": figures["bridge_p99_ms"]}),
                Bar(f"{name}: Redis alone", {"redis": own}, said),
            ]
        return [
            Chart(self.name, "Lag, p50 and p99, and p50 of Redis alone (logarithmic)", "ms", bars, logarithmic=True)
        ]
