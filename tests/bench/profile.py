"""Case 1 once more, with samples of the bridge's stack: what each stage costs."""

import asyncio
from typing import Final

from tests.bench.burst import burst, recorded, retried
from tests.bench.case import Figures
from tests.bench.stage import staged_with_nats
from tests.bench.stages import Sampler

KEYS: Final = 100_000
ATTACH_SECONDS: Final = 0.5


async def profiled(scale: float) -> Figures:
    """Stage → microseconds of the bridge's processor time for one expiration.

    Sampling stops the process for a moment each time, which is no processor time of its own.
    """
    return await retried(lambda: _profiled(round(KEYS * scale)))


async def _profiled(count: int) -> Figures:
    async with staged_with_nats() as stage, recorded(stage, count) as (bridge, deadline_ms):
        with Sampler(bridge.pid) as sampler:
            await asyncio.sleep(ATTACH_SECONDS)
            figures = await burst(stage, bridge, count, deadline_ms, broker=stage.nats.pid)
            return {stage_name: share * figures["bridge_cpu_us"] for stage_name, share in sampler.shares().items()}
