"""`expiry-bridge check`: a doctor. What Redis and the broker must be, what they are, and how to fix the difference.

Guarantees: changes nothing, in Redis or at the broker, but for a key of the bridge's own that expires at once; with
`publish` one message is published, too. Exit status 1 if anything fails: then `run` would refuse to work, or could not
keep its promise.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from bridge.commands.check import test_message as trial
from bridge.commands.check.findings import Level, Row, passed
from bridge.commands.check.kafka.server import check_kafka
from bridge.commands.check.nats.server import check_nats
from bridge.commands.check.redis.cluster import check_cluster
from bridge.commands.check.redis.server import check_redis
from bridge.commands.check.streams.server import check_streams
from bridge.commands.screen import Screen, print_json
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings, SinkKind
from bridge.telemetry import logs

_STYLES = {Level.PASS: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def check(settings: Settings, *, as_json: bool, publish: bool) -> int:
    """Print what was found. The exit status. Raises ConfigurationError."""
    logs.configure(settings.log_level, settings.log_format)
    rows = asyncio.run(_examine(settings, publish=publish))
    counts = Counter(row.finding.level for row in rows)
    if as_json:
        print_json({"ok": not counts[Level.FAIL], "checks": [_as_json(row) for row in rows]})
    else:
        _show(rows, counts)
    return 1 if counts[Level.FAIL] else 0


async def _examine(settings: Settings, *, publish: bool) -> list[Row]:
    check_source = check_cluster if settings.redis_address().nodes else check_redis
    broker, redis = await asyncio.gather(_check_sink(settings, publish=publish), check_source(settings))
    return redis + broker


async def _check_sink(settings: Settings, *, publish: bool) -> list[Row]:
    db = Endpoint.of(settings).db
    message = trial.message(settings, db) if publish else None
    match settings.sink:
        case SinkKind.JETSTREAM:
            return await check_nats(settings, db, message)
        case SinkKind.KAFKA:
            return await check_kafka(settings, db, message)
        case SinkKind.REDIS:
            return await check_streams(settings, db, message)
        case SinkKind.STDOUT:
            return [Row("stdout", "sink", passed("needs nothing"))]


def _as_json(row: Row) -> dict[str, Any]:
    finding = row.finding
    return {
        "area": row.area,
        "check": row.check,
        "level": finding.level.value,
        "found": finding.found,
        "remedy": finding.remedy or None,
        **({"nodes": list(row.nodes)} if row.nodes else {}),
    }


def _show(rows: Sequence[Row], counts: Counter[Level]) -> None:
    screen = Screen()
    for area in dict.fromkeys(row.area for row in rows):
        own = [row for row in rows if row.area == area]
        width = max(len(row.check) for row in own)
        screen.say(area, style="bold")
        for row in own:
            finding = row.finding
            style = _STYLES[finding.level]
            screen.rows([[Text(finding.level.value, style), row.check.ljust(width), finding.found]], indent=2)
            if finding.remedy:
                where = row.where and f"on {row.where}: "
                screen.whole(Text.assemble(("→ ", style), where, finding.remedy), indent=width + 10)
        screen.say()
    screen.say(_verdict(counts))


def _verdict(counts: Counter[Level]) -> Text:
    failed, warned = counts[Level.FAIL], counts[Level.WARN]
    warnings = f"{warned} warning{'s' * (warned != 1)}"
    if failed:
        return Text(
            f"{failed} failure{'s' * (failed != 1)}, {warnings}: fix what failed, then check again.", "bold red"
        )
    return Text(f"No failure, {warnings}: the bridge can work here.", "green")
