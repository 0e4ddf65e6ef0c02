"""Case 1: how many expirations a second reach JetStream, beside its own limit and the tutorial's way."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.benthos import Benthos, listening
from tests.bench.benthos import program as benthos_program
from tests.bench.burst import burst, figures_of, missing, recorded, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart, cost_of
from tests.bench.stage import JetStreamStage, in_seconds, staged_with_nats, until
from tests.bench.usage import MEBIBYTE, Usage, resident_bytes
from tests.bench.worker import Worker
from tests.support.servers import wait_until

KEYS: Final = 200_000
TUTORIAL_KEYS: Final = 20_000
"""Fewer, because it would take a minute; its rate does not depend on how many they are."""
TUTORIAL_LEAD_SECONDS: Final = 1.0
BENTHOS: Final = "Benthos"
SET_PER_SECOND: Final = 20_000
LOOK_SECONDS: Final = 0.2
QUIET_SECONDS: Final = 3.0
"""After so long without another one, the rest is lost."""


async def bridged(count: int, others: int = 0) -> Figures:
    """The bridge: recorded keys, JetStream. `others` are recorded, too, and do not expire."""
    async with staged_with_nats() as stage, recorded(stage, count, others=others) as (bridge, deadline_ms):
        figures = await burst(stage, bridge, count, deadline_ms, others=others, broker=stage.nats.pid)
        missing(await stage.stored(), count)
        figures["memory_mib"] = resident_bytes(bridge.pid) / MEBIBYTE
        figures["gaps"] = await bridge.metric("bridge_gaps_total") - 1  # the first one is that of its start
        return figures


async def published(count: int) -> Figures:
    """The limit: messages that are ready, nothing but NATS."""
    async with staged_with_nats() as stage:
        usage = Usage.begin(broker=stage.nats.pid)
        with Worker("nats_limit", url=stage.nats.url, count=count) as worker:
            figures = await worker.found()
        missing(await stage.stored(), count)
        return {**figures, **usage.per_event(count)}


async def by_the_tutorial(count: int) -> Figures:
    """Without a bridge. Redis would tell late: somebody reads the keys for it."""
    async with staged_with_nats() as stage:
        await stage.redis.config_set("notify-keyspace-events", "Ex")
        deadline_ms = in_seconds(TUTORIAL_LEAD_SECONDS + 2)
        arguments = {"redis_url": stage.server.url, "nats_url": stage.nats.url}
        with Worker("tutorial", **arguments, count=count, deadline_ms=deadline_ms) as worker:
            await worker.ready()
            await stage.fill(count, deadline_ms)
            await until(deadline_ms + 1)
            usage = Usage.begin(redis=stage.server.pid, broker=stage.nats.pid)
            await stage.touch(count)
            figures = await worker.found()
        missing(await stage.stored(), count)
        return {**figures, **usage.per_event(count)}


async def by_benthos(program: Path, count: int) -> Figures:
    """Likewise, by a pipeline. What it loses, it loses: `lost`."""
    async with staged_with_nats() as stage:
        await stage.redis.config_set("notify-keyspace-events", "Ex")
        await stage.make_stream()
        with Benthos(program, stage.server.url, stage.nats.url) as benthos:
            await wait_until(partial(listening, stage.redis, benthos), "a subscriber")
            deadline_ms = in_seconds(TUTORIAL_LEAD_SECONDS + count / SET_PER_SECOND)
            await stage.fill(count, deadline_ms)
            await until(deadline_ms + 1)
            usage = Usage.begin(client=benthos.pid, redis=stage.server.pid, broker=stage.nats.pid)
            await stage.touch(count)
            stored = await _as_many_as_come(stage, count)
            seconds = await stage.last_stored() - deadline_ms / 1000
            return {**figures_of(stored, seconds, usage), "lost": count - stored}


async def _as_many_as_come(stage: JetStreamStage, count: int) -> int:
    """How many are stored: all, or as many as have come when none has followed for a while."""
    stored, since = 0, time.monotonic()
    while stored < count and time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := await stage.stored()) > stored:
            stored, since = now, time.monotonic()
    return stored


class ThroughputJetStream:
    """See `Case`."""

    name = "throughput-jetstream"
    title = "Throughput, JetStream"
    question = (
        f"{KEYS:,} recorded keys expire at once: from their deadline to the last ack and settle, one bridge process."
    )
    runs = 3
    seconds = 90.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        count = round(KEYS * scale)
        yield {
            "bridge": partial(retried, partial(bridged, count)),
            "limit": partial(published, count),
            "tutorial": partial(by_the_tutorial, round(TUTORIAL_KEYS * scale)),
            **({} if (peer := benthos_program()) is None else {BENTHOS: partial(by_benthos, peer, count // 2)}),
        }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        bridge, limit, tutorial = (medians[name] for name in ("bridge", "limit", "tutorial"))
        ours = sum(bridge[f"{name}_cpu_us"] for name in ("bridge", "redis", "broker"))
        theirs = sum(tutorial[f"{name}_cpu_us"] for name in ("client", "redis", "broker"))
        return [
            Verdict("expirations", bridge["rate_per_s"], "/s"),
            Verdict("÷ nats-py alone", bridge["rate_per_s"] / limit["rate_per_s"], at_least=0.8),
            Verdict("÷ the tutorial's way", bridge["rate_per_s"] / tutorial["rate_per_s"], at_least=8.0),
            Verdict("processor time: nats-py alone ÷ the bridge's", limit["client_cpu_us"] / bridge["bridge_cpu_us"]),
            Verdict("processor time ÷ nats-py's own", bridge["bridge_cpu_us"] / limit["client_cpu_us"], at_most=0.9),
            Verdict("processor time of all: the tutorial's way ÷ ours", theirs / ours),
            *(_against_benthos(bridge, medians[BENTHOS]) if BENTHOS in medians else []),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        names = {"limit": "nats-py alone", "bridge": "bridge", "tutorial": "psubscribe, publish", BENTHOS: BENTHOS}
        names = {name: said for name, said in names.items() if name in medians}
        return [
            Chart(
                "throughput-jetstream",
                f"{self.title}: expirations stored",
                "/s",
                [Bar(said, {"bridge": medians[name]["rate_per_s"]}) for name, said in names.items()],
            ),
            Chart(
                "throughput-jetstream-cost",
                f"{self.title}: processor time of one expiration",
                "µs",
                [cost_of(said, medians[name]) for name, said in names.items()],
            ),
        ]


def _against_benthos(bridge: Figures, benthos: Figures) -> Sequence[Verdict]:
    return [
        Verdict("÷ Benthos", bridge["rate_per_s"] / benthos["rate_per_s"]),
        Verdict("processor time ÷ Benthos's", bridge["bridge_cpu_us"] / benthos["client_cpu_us"]),
        Verdict("lost by Benthos", benthos["lost"], ""),
    ]
