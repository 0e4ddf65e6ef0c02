"""How long a start takes: of the service until it is ready, and of a command that only says what there is."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart
from tests.bench.control import FIGURE, controlled
from tests.bench.stage import BareBridge, staged_with_nats
from tests.bench.usage import Usage, cpu_seconds_of_children, waited_seconds

HELP_SECONDS, READY_SECONDS = 0.25, 1.0


async def service(sink: str) -> Figures:
    """From the start of the process until it is ready, with a fresh Redis and a fresh broker."""
    figures = Figures()
    async with staged_with_nats() as stage, controlled(figures):
        begun = time.perf_counter()
        async with stage.bridge(sink=sink) as bridge:
            usage = Usage.of_all(bridge=bridge.pid)
            await bridge.ready()
            figures["seconds"] = time.perf_counter() - begun
            figures["cpu_seconds"] = usage.seconds()["bridge"]
            figures["waited_seconds"] = waited_seconds(bridge.pid)
    return figures


async def helped() -> Figures:
    """`--help`, from the start of the process to its end."""
    figures = Figures()
    async with controlled(figures):
        command = BareBridge({}, "--help")
        before, begun = cpu_seconds_of_children(), time.perf_counter()
        with command:
            await command.exited()
            figures["seconds"] = time.perf_counter() - begun
            figures["cpu_seconds"] = cpu_seconds_of_children() - before
            figures["waited_seconds"] = figures["seconds"] - figures["cpu_seconds"]  # it waits for nothing else
    return figures


class Start:
    """See `Case`."""

    name = "start"
    title = "Start"
    question = "From the start of the process until the service is ready, or `--help` has ended."
    runs = 5
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        yield {"help": helped, **{sink: partial(service, sink) for sink in ("jetstream", "redis")}}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`. Processor time is the least that it can take, on whatever machine.

        It mostly computes, so here the control is also how long it waited for a processor.
        """
        verdicts = []
        for name, found in medians.items():
            bar = HELP_SECONDS if name == "help" else READY_SECONDS
            control = max(found[FIGURE] / 1000, found["waited_seconds"])
            what = "--help" if name == "help" else f"ready, {name}"
            verdicts += [
                Verdict(what, found["seconds"], "s", at_most=bar, control=control),
                Verdict(f"{what}: processor time", found["cpu_seconds"], "s", at_most=bar),
            ]
        return verdicts

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`. The table says it all."""
        return []
