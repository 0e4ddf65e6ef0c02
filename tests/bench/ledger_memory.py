"""What listpack buckets would do for the ledger: memory, and the cost of the way that each key takes.

`python -m tests.bench.ledger_memory` prints the table of `LEDGER_MEMORY.md`. The present ledger and the prototype
(`buckets.py`) are measured in turn, on each server that is installed: so the ratios hold on a busy machine as well.
Nothing but a client that calls the ledger's scripts runs beside the server.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from statistics import median
from typing import Final

from redis.asyncio import Redis

from bridge.commands.embedded import Unavailable
from bridge.limits import LedgerLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import Applied, Batch, Claim, Lease, Touch
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.bench.buckets import BucketRunner
from tests.bench.stage import NAMES, TooLate, in_seconds, until
from tests.bench.usage import Usage
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer

KEYS: Final = 50_000
BATCH: Final = 500
"""Keys in one script: a full batch of the bridge's."""
SINGLES: Final = 2_000
"""Of the keys, how many take the way one at a time, as at ordinary rates."""
LENGTHS: Final = (16, 60, 80)
"""Bytes of a key. Redis keeps no listpack with a member of more than 64."""
KINDS: Final = (RedisServer, Redis8Server, ValkeyServer)
VARIANTS: Final = ("present", "buckets")
WAYS: Final = ("record", "due, 500 in a script", "due, one in a script")
MEMORY: Final = "bytes a key"
MEBIBYTE: Final = 1 << 20
FILL_KEYS: Final = 2_000
LEAD_SECONDS: Final = 2.0
RECORDED: Final = 4_000
"""Keys a second that are surely recorded before they are due; a third of that, where it was too late, and so on."""
SLOWER: Final = 3
_SET = """
for i = 2, #ARGV do redis.call('SET', ARGV[i], '', 'PXAT', ARGV[1]) end
"""


@dataclass
class Hand:
    """An epoch by hand: scripts, one after the other."""

    ledger: Ledger
    fence: int
    sent: int = 0

    async def apply(self, operations: Sequence[bytes]) -> Applied:
        """One batch."""
        self.sent += 1
        mark = NAMES.mark(self.fence, self.sent)
        applied = await self.ledger.apply(Batch(self.fence, self.sent, 0, 0, mark, operations))
        if applied is None:
            raise RuntimeError("it was applied before")
        return applied

    async def due(self, limit: int) -> list[bytes]:
        """Touch what is due. Returns the keys that are gone."""
        self.sent += 1
        touched = await self.ledger.touch(Touch(self.fence, NAMES.mark(self.fence, self.sent), limit, MEBIBYTE, 0))
        return [key for key, *_ in touched.sights]


def _words(operation: Callable[[bytes], op.Operation], keys: Sequence[bytes]) -> list[bytes]:
    return [word for key in keys for word in operation(key)]


async def measured(kind: type[RedisServer], variant: str, count: int, length: int) -> dict[str, float]:
    """Bytes of the ledger for a key, and microseconds of the server's processor time for a key, each way."""
    for slower in range(SLOWER):
        with suppress(TooLate):
            return await _on_a_server(kind, variant, count, length, LEAD_SECONDS + count / RECORDED * 3**slower)
    raise TooLate


async def _on_a_server(
    kind: type[RedisServer], variant: str, count: int, length: int, lead_seconds: float
) -> dict[str, float]:
    with kind({"enable-debug-command": "yes"}) as server:
        settings = Settings(redis_url=server.url)
        redis = Redis.from_url(server.url)
        with closing(Commands(Endpoint.of(settings))) as commands:
            ledger = Ledger(commands, NAMES, LedgerLimits())
            if variant == "buckets":
                ledger._runner = BucketRunner(commands, count)
            try:
                return await _measured(
                    server.pid, redis, ledger, [b"%0*d" % (length, n) for n in range(count)], lead_seconds
                )
            finally:
                await redis.aclose()


async def _measured(
    pid: int, redis: Redis, ledger: Ledger, keys: Sequence[bytes], lead_seconds: float
) -> dict[str, float]:
    count = len(keys)
    lease = await ledger.acquire(Claim("bench"))
    assert isinstance(lease, Lease)
    hand = Hand(ledger, lease.fence)
    await ledger.commands.ask("DEBUG", "SET-ACTIVE-EXPIRE", "0")  # only touches expire
    deadline_ms = in_seconds(lead_seconds)
    for first in range(0, count, FILL_KEYS):
        await redis.eval(_SET, 0, deadline_ms, *keys[first : first + FILL_KEYS])
    figures = dict[str, float]()

    used, before = Usage.begin(redis=pid), await _used(redis)
    for first in range(0, count, BATCH):
        await hand.apply(_words(op.appeared, keys[first : first + BATCH]))
    figures[WAYS[0]] = used.per_event(count)["redis_cpu_us"]
    figures[MEMORY] = (await _used(redis) - before) / count
    if time.time() * 1000 >= deadline_ms:
        raise TooLate
    await until(deadline_ms + 2)

    singles = min(SINGLES, count // 10)
    for way, limit, most in ((WAYS[2], 1, singles), (WAYS[1], BATCH, count - singles)):
        used, done = Usage.begin(redis=pid), 0
        while done < most:
            gone = await hand.due(min(limit, most - done))
            applied = await hand.apply(_words(op.expired, gone))
            if not gone or applied.by_notification != len(gone):
                raise RuntimeError(f"claimed {applied.by_notification} of {len(gone)}")
            done += len(gone)
        figures[way] = used.per_event(most)["redis_cpu_us"]
    if await hand.due(BATCH) or applied.state.size or applied.state.lowest_ms is not None:
        raise RuntimeError("something is left")
    return figures


async def _used(redis: Redis) -> int:
    """Bytes that the server uses for data, without what its clients and scripts need."""
    stats = await redis.memory_stats()
    return int(stats["total.allocated"]) - int(stats["clients.normal"]) - int(stats.get("lua.caches", 0))


async def table(count: int, runs: int, tell: Callable[[str], None]) -> list[str]:
    """The rows, in Markdown: of each server and figure the present ledger, the prototype, and their ratio."""
    rows = ["| server | key, bytes | figure | present | buckets | ratio |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        try:
            title = await asyncio.to_thread(_title, kind)
        except Unavailable as error:
            tell(str(error))
            continue
        for length in LENGTHS:
            found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
            for _ in range(runs if length == LENGTHS[0] else 1):
                for variant in VARIANTS:
                    found[variant].append(await measured(kind, variant, count, length))
                    tell(f"{title}, {length} bytes, {variant}: {found[variant][-1]}")
            for figure in (MEMORY, *WAYS) if length == LENGTHS[0] else (MEMORY, WAYS[1]):
                present, buckets = (median([one[figure] for one in found[variant]]) for variant in VARIANTS)
                unit = "" if figure == MEMORY else " µs"
                row = f"{present:.3g}{unit} | {buckets:.3g}{unit} | {buckets / present:.2f}"
                rows.append(f"| {title} | {length} | {figure} | {row} |")
    return rows


def _title(kind: type[RedisServer]) -> str:
    with kind() as server:
        import redis  # noqa: PLC0415 - the synchronous client, for one question

        with redis.Redis(port=server.port) as client:
            info = client.info("server")
    valkey = info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(arguments: list[str]) -> None:
    """Measure, and print the table."""
    described = __doc__.partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ledger_memory", description=described)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--runs", type=int, default=3, help="how often each variant is measured, with keys of 16 bytes")
    given = parser.parse_args(arguments)
    rows = asyncio.run(table(given.keys, given.runs, _tell))
    sys.stdout.write("\n".join([*rows, ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
