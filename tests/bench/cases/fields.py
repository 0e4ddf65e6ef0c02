"""How late expirations of hash fields are announced while many other fields have deadlines."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import missing
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart
from tests.bench.control import FIGURE, controlled
from tests.bench.figures import percentile
from tests.bench.stage import PREFIX, SUBJECT, in_seconds, staged_with_nats, until
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer

KINDS: Final = {"Redis 8": Redis8Server, "Valkey": ValkeyServer}
RATE: Final = 100
"""Fields that pass their deadlines in a second."""
SECONDS: Final = 6.0
LEAD_SECONDS: Final = 3.0
"""For all fields to be recorded."""
OTHERS: Final = 20_000
"""Fields that expire in an hour."""
OF_ONE_HASH: Final = 200
"""How many of them each hash has."""
AN_HOUR_MS: Final = 3_600_000


async def fields(kind: type[RedisServer], others: int, seconds: float) -> Figures:
    """One field after the other, each of a hash of its own, beside the others."""
    count, figures = round(RATE * seconds), Figures()
    async with staged_with_nats(kind=kind) as stage, stage.bridge(fields="*") as bridge:
        await bridge.ready()
        pipe = stage.redis.pipeline(transaction=False)
        for number in range(0, others, OF_ONE_HASH):
            names = [f"field:{index}" for index in range(number, number + OF_ONE_HASH)]
            pipe.hset(f"other:{number}", mapping=dict.fromkeys(names, "x"))
            pipe.execute_command("HPEXPIRE", f"other:{number}", AN_HOUR_MS, "FIELDS", len(names), *names)
        begin_ms = in_seconds(LEAD_SECONDS)
        for number in range(count):
            key = f"{PREFIX}:{number}"
            pipe.hset(key, mapping={"kept": "x", "timed": "x"})
            pipe.execute_command("HPEXPIREAT", key, begin_ms + number * 1000 // RATE, "FIELDS", 1, "timed")
        await pipe.execute()
        await until(begin_ms)
        async with controlled(figures):
            await until(begin_ms + seconds * 1000)
        stored = [(json.loads(body)["data"], at_ms) for body, at_ms in await stage.read(SUBJECT, count)]
        missing(len(stored), count)
    lags = [at_ms - data["deadline_ms"] for data, at_ms in stored if data["deadline_ms"] is not None]
    return {"events": count, **figures, "lag_p50_ms": percentile(lags, 50), "lag_p99_ms": percentile(lags, 99)}


class Fields:
    """See `Case`."""

    name = "fields"
    title = "Fields of hashes"
    question = (
        f"{RATE} fields a second pass their deadlines, each in a hash of its own, while {OTHERS:,} other fields have"
        " deadlines in an hour: how late each is stored. The servers alone expire them 100 to 800 ms late."
    )
    runs = 1
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`. A rate is a rate at any scale."""
        others, seconds = round(OTHERS * scale), max(SECONDS * min(scale, 1.0), 1.0)
        yield {name: partial(fields, kind, others, seconds) for name, kind in KINDS.items()}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        for name, found in medians.items():
            verdicts += [
                Verdict(f"{name}: p50 lag", found["lag_p50_ms"], "ms"),
                Verdict(f"{name}: p99 lag", found["lag_p99_ms"], "ms", at_most=50.0, control=found[FIGURE]),
            ]
        return verdicts

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [Bar(name, {"bridge": found["lag_p99_ms"]}) for name, found in medians.items()]
        return [Chart(self.name, "Fields of hashes: p99 from the deadline until the message is stored", "ms", bars)]
