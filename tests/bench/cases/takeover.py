"""How long nothing is announced when the bridge that works is killed, while another one stands by."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.bench.burst import missing
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart
from tests.bench.control import FIGURE, controlled
from tests.bench.stage import SUBJECT, in_seconds, staged_with_nats, until

RATE: Final = 200
"""Keys a second that expire meanwhile."""
SECONDS: Final = 8.0
LEAD_SECONDS: Final = 2.0
KILLED_AFTER_SECONDS: Final = 1.0


async def killed() -> Figures:
    """SIGKILL for the one that works."""
    count, figures = round(RATE * SECONDS), Figures()
    async with staged_with_nats() as stage, stage.bridge() as working:
        await working.ready()
        async with stage.bridge() as standby:
            await standby.stands_by()
            begin_ms = in_seconds(LEAD_SECONDS)
            await stage.fill(count, begin_ms, spread_ms=round(SECONDS * 1000))
            await stage.recorded(count, begin_ms)
            await until(begin_ms + KILLED_AFTER_SECONDS * 1000)
            async with controlled(figures):
                working.kill()
                killed_ms = time.time() * 1000
                await asyncio.sleep(1.0)
            await stage.settled()
            missing(await stage.stored(), count)
            stored = [(json.loads(body), at_ms) for body, at_ms in await stage.read(SUBJECT, count)]
            figures["gaps"] = await standby.metric("bridge_gaps_total")
    after = [at_ms for body, at_ms in stored if body["data"]["deadline_ms"] > killed_ms]
    return {"events": count, "seconds": (min(after) - killed_ms) / 1000, **figures}


class Takeover:
    """See `Case`."""

    name = "takeover"
    title = "Takeover"
    question = (
        f"{RATE} recorded keys a second expire; the bridge that works is killed with SIGKILL, while another stands by:"
        " from then until the first expiration is stored whose deadline is later."
    )
    runs = 3
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {"killed": killed}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        found = medians["killed"]
        return [
            Verdict("until another one announces", found["seconds"], "s", at_most=0.3, control=found[FIGURE] / 1000),
            Verdict("gaps", found["gaps"], ""),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`. The table says it all."""
        return []
