"""Case 9: sliding TTLs: the same keys are put off over and over, and nothing is announced."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart
from tests.bench.figures import percentile
from tests.bench.probes import Probes
from tests.bench.stage import staged_with_nats
from tests.bench.usage import Usage
from tests.bench.worker import Worker
from tests.bench.workers.generator import SLIDING_KEYS

PACE: Final = 20_000
SECONDS: Final = 5.0
PROBES_PER_SECOND: Final = 50
"""Keys of their own that do expire meanwhile: were the bridge behind with its hints, they would be late."""


async def slid(pace: int) -> Figures:
    """`EXPIRE` at an even pace."""
    async with staged_with_nats() as stage, stage.bridge() as bridge:
        await bridge.ready()
        await stage.fill_for_long(SLIDING_KEYS)
        await stage.recorded(SLIDING_KEYS)
        usage = Usage.begin(bridge=bridge.pid, redis=stage.server.pid)
        probes = Probes("probe", PROBES_PER_SECOND)
        with Worker("generator", port=stage.server.port, kind="expire", seconds=SECONDS, rate=pace) as generator:
            await probes.set(stage.redis, round(SECONDS * PROBES_PER_SECOND))
            figures: Figures = await generator.found()
        used = usage.seconds()
        lags = await probes.lags(stage)
        return {
            **figures,
            "kept_pace": figures["rate_per_s"] / pace,
            "announced": await stage.stored(),
            "lag_p50_ms": percentile(lags, 50),
            "lag_p99_ms": percentile(lags, 99),
            **{f"{name}_percent": seconds / SECONDS * 100 for name, seconds in used.items()},
            **usage.per_event(round(figures["events"])),
        }


class FastLane:
    """See `Case`."""

    name = "fast-lane"
    title = "Fast lane"
    question = (
        f"{PACE:,} EXPIRE a second on {SLIDING_KEYS:,} keys, and {PROBES_PER_SECOND} keys a second that do expire."
    )
    runs = 2
    seconds = 20.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`. The pace is the question, so the scale does not change it."""
        yield {"sliding": partial(slid, PACE)}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        sliding = medians["sliding"]
        return [
            Verdict("pace kept", sliding["kept_pace"], at_least=0.97),
            Verdict("announced of keys that were put off", sliding["announced"], "", at_most=0),
            Verdict("p50 lag of those that expire", sliding["lag_p50_ms"], "ms", at_most=5.0),
            Verdict("p99 lag of those that expire", sliding["lag_p99_ms"], "ms", at_most=20.0),
            Verdict("the bridge", sliding["bridge_percent"], "% of a core"),
            Verdict("Redis, the EXPIRE included", sliding["redis_percent"], "% of a core"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`. The table says it all."""
        return []
