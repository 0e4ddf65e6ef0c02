"""Case 7: what a bridge takes: processor time for an expiration and when idle, memory however large the ledger is."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.cases.throughput_jetstream import bridged
from tests.bench.chart import Bar, Chart
from tests.bench.stage import staged_with_nats
from tests.bench.usage import MEBIBYTE, Usage, resident_bytes

KEYS: Final = 50_000
RECORDED: Final = 1_000_000
QUIET_SECONDS: Final = 1.5
"""For what a start leaves behind to be done with."""
IDLE_SECONDS: Final = 3.0


async def idle(recorded: int) -> Figures:
    """With so many keys in the ledger, none of them due."""
    async with staged_with_nats() as stage:
        await stage.fill_for_long(recorded)
        async with stage.bridge() as bridge:
            await bridge.ready()
            await stage.recorded(recorded)
            await asyncio.sleep(QUIET_SECONDS)
            usage = Usage.begin(bridge=bridge.pid, redis=stage.server.pid)
            await asyncio.sleep(IDLE_SECONDS)
            used = usage.seconds()
            return {
                "memory_mib": resident_bytes(bridge.pid) / MEBIBYTE,
                **{f"{name}_percent": seconds / IDLE_SECONDS * 100 for name, seconds in used.items()},
            }


class BridgeCost:
    """See `Case`."""

    name = "bridge-cost"
    title = "Cost of the bridge"
    question = (
        f"Processor time for one of {KEYS:,} expirations; memory, and share of one core, with an empty ledger and with"
        f" {RECORDED:,} recorded keys of which none is due."
    )
    runs = 2
    seconds = 56.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {
            "empty": partial(idle, 0),
            "full": partial(idle, round(RECORDED * scale)),
            "burst": partial(retried, partial(bridged, round(KEYS * scale))),
        }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        empty, full = medians["empty"], medians["full"]
        return [
            Verdict("processor time of one expiration", medians["burst"]["bridge_cpu_us"], "µs"),
            Verdict("memory, empty ledger", empty["memory_mib"], "MiB"),
            Verdict(f"memory, {RECORDED:,} recorded keys", full["memory_mib"], "MiB", at_most=120e6 / MEBIBYTE),
            Verdict("memory, full ÷ empty ledger", full["memory_mib"] / empty["memory_mib"], at_most=1.3),
            Verdict("idle, empty ledger", empty["bridge_percent"], "% of a core", at_most=1.0),
            Verdict(f"idle, {RECORDED:,} recorded keys", full["bridge_percent"], "% of a core", at_most=1.0),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        names = {"empty": "empty ledger", "full": f"{RECORDED:,} recorded keys"}
        bars = [Bar(said, {"bridge": medians[name]["memory_mib"]}) for name, said in names.items()]
        return [Chart(self.name, "Cost of the bridge: resident memory", "MiB", bars)]
