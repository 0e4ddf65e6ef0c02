"""Case 4: what expired while the bridge was down, and how fast it is made up for."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import figures_of, missing, recorded, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.cases.throughput_jetstream import bridged
from tests.bench.chart import Chart
from tests.bench.stage import staged_with_nats, until
from tests.bench.usage import Usage

KEYS: Final = 100_000


async def recovered(count: int) -> Figures:
    """From the start of the bridge's process to the last ack and settle. All keys are gone by then."""
    async with staged_with_nats() as stage:
        async with recorded(stage, count) as (former, deadline_ms):
            await former.stop()
        await until(deadline_ms + 1)
        await stage.touch(count)
        usage = Usage.begin(redis=stage.server.pid, broker=stage.nats.pid)
        begun = time.time()
        async with stage.bridge() as bridge:
            done = await stage.settled()
            figures = figures_of(count, done - begun, usage, Usage.of_all(bridge=bridge.pid))
            missing(await stage.stored(), count)
        return figures


class Recovery:
    """See `Case`."""

    name = "recovery"
    title = "Recovery"
    question = (
        f"{KEYS:,} recorded keys expire while the bridge is down: from the start of its process to the last ack and"
        " settle, beside as many that expire while it runs."
    )
    runs = 2
    seconds = 42.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        count = round(KEYS * scale)
        yield {
            "down": partial(retried, partial(recovered, count)),
            "up": partial(retried, partial(bridged, count)),
        }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        down, up = medians["down"], medians["up"]
        return [
            Verdict("recovered, the start included", down["rate_per_s"], "/s"),
            Verdict("÷ while it runs", down["rate_per_s"] / up["rate_per_s"], at_least=0.5),
            Verdict(
                "processor time: while it runs ÷ recovery, the start included",
                up["bridge_cpu_us"] / down["bridge_cpu_us"],
            ),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`. The table says it all."""
        return []
