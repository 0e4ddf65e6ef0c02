"""Several bridges on the shards of one Redis: where the limit is, and whose."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from bridge.redis.protocol.own_keys import Names
from tests.bench.burst import LEAD, figures_of, missing, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart
from tests.bench.stage import PATIENCE, JetStreamStage, TooLate, in_seconds, staged_with_nats, until
from tests.bench.usage import Usage
from tests.support.servers import wait_until

KEYS: Final = 200_000
PROCESSES: Final = (1, 2, 4)


async def shared(processes: int, count: int) -> Figures:
    """So many bridges, each with a shard: recorded keys, JetStream."""
    shards = [Names("expiry-bridge", 0, shard) for shard in range(processes)]
    async with staged_with_nats() as stage, AsyncExitStack() as stack:
        bridges = [await stack.enter_async_context(stage.bridge(shards=str(processes))) for _ in shards]
        for bridge in bridges:
            await bridge.ready()  # each holds a shard then
        deadline_ms = in_seconds(LEAD.seconds(count))
        await stage.fill(count, deadline_ms)
        await wait_until(partial(_recorded, stage, shards, count, deadline_ms), "recorded keys", PATIENCE)
        if in_seconds(0.05) > deadline_ms:
            LEAD.longer()
            raise TooLate
        await until(deadline_ms - 20)
        usage = Usage.begin(redis=stage.server.pid, broker=stage.nats.pid)
        usages = [Usage.begin(bridge=bridge.pid) for bridge in bridges]
        await until(deadline_ms + 1)
        await wait_until(partial(_are, stage, shards, 0), "the claims", PATIENCE)
        await wait_until(partial(_is_settled, stage, shards), "the settling", PATIENCE)
        seconds = (in_seconds(0) - deadline_ms) / 1000
        figures = figures_of(count, seconds, usage)
        figures["bridge_cpu_us"] = sum(one.per_event(count)["bridge_cpu_us"] for one in usages)
        missing(await stage.stored(), count)
        return figures


async def _recorded(stage: JetStreamStage, shards: Sequence[Names], count: int, before_ms: float) -> bool:
    """Whether all keys are recorded. Raises TooLate once they are due: then they never are."""
    if in_seconds(0) >= before_ms:
        LEAD.longer()
        raise TooLate
    return await _are(stage, shards, count)


async def _are(stage: JetStreamStage, shards: Sequence[Names], count: int) -> bool:
    """Whether the ledgers have so many entries."""
    return sum([int(await stage.redis.zcard(names.deadlines)) for names in shards]) == count


async def _is_settled(stage: JetStreamStage, shards: Sequence[Names]) -> bool:
    return not any([int(await stage.redis.xlen(names.outbox)) for names in shards])


class Scale:
    """See `Case`."""

    name = "scale"
    title = "Several bridges"
    question = f"{KEYS:,} recorded keys of one Redis expire at once: {PROCESSES} bridges, with a shard each."
    runs = 2
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        count = round(KEYS * scale)
        yield {str(number): partial(retried, partial(shared, number, count)) for number in PROCESSES}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`. What Redis takes for one is what no number of bridges can go beyond."""
        rates = {number: medians[str(number)]["rate_per_s"] for number in PROCESSES}
        most = medians[str(PROCESSES[-1])]
        return [
            *(Verdict(f"{number} bridges", rate, "/s") for number, rate in rates.items()),
            Verdict("4 bridges ÷ 2", rates[4] / rates[2], at_least=1.0),
            Verdict(
                "processor time of all bridges, for each: 4 bridges ÷ 2",
                most["bridge_cpu_us"] / medians["2"]["bridge_cpu_us"],
            ),
            Verdict(f"{PROCESSES[-1]} bridges: Redis's limit, on a core of its own", 1e6 / most["redis_cpu_us"], "/s"),
            Verdict(f"{PROCESSES[-1]} bridges: the broker's limit, likewise", 1e6 / most["broker_cpu_us"], "/s"),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [Bar(f"{number}", {"bridge": medians[str(number)]["rate_per_s"]}) for number in PROCESSES]
        return [Chart(self.name, "Several bridges: expirations stored", "/s", bars)]
