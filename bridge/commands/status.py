"""`expiry-bridge status`: one look at the bridge's own keys in Redis. Reads only, and shows no user key."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from bridge.commands.screen import Cell, Screen, duration, print_json
from bridge.redis.connection import Endpoint
from bridge.redis.inspection import Inspector, LeaseState, State
from bridge.redis.requirements import Server
from bridge.settings import Settings
from bridge.telemetry import logs


def status(settings: Settings, *, as_json: bool) -> int:
    """Print the status. The exit status: 0. Raises NotConnected or Refused where Redis does not tell."""
    logs.configure(settings.log_level, settings.log_format)
    server, state = asyncio.run(_look(settings))
    if as_json:
        print_json(_as_json(settings, server, state))
    else:
        screen = Screen()
        screen.say(Text(_headline(settings, server), "bold"))
        screen.rows([[Text(label, "cyan"), value] for label, value in _lines(state)], indent=2)
    return 0


async def _look(settings: Settings) -> tuple[Server | None, State]:
    inspector = Inspector(settings)
    try:
        return await inspector.server(), await inspector.state()
    finally:
        await inspector.close()


def _headline(settings: Settings, server: Server | None) -> str:
    endpoint = Endpoint.of(settings)
    product = f"{server.product} {server.version}" if server else "Redis (version cannot be read)"
    role = "" if server is None or server.primary else " (a replica)"
    return f"{product} at {endpoint}{role}, db {endpoint.db}, namespace {settings.namespace}"


def _lines(state: State) -> Sequence[tuple[str, Cell]]:
    lease = state.lease
    seen = lease.seen_ms if lease else None
    return [
        ("deadline ledger", _ledger(state)),
        ("outbox", _outbox(state)),
        ("lease", _holder(lease, state.now_ms)),
        ("handled up to", _moment(seen, state.now_ms) if seen else "nothing yet"),
        ("dead letters", Text(str(state.dead_letters), "bold red" if state.dead_letters else "")),
    ]


def _ledger(state: State) -> str:
    text = f"{state.ledger_size} key{'s' * (state.ledger_size != 1)}"
    if state.next_deadline_ms is None:
        return text
    ahead = (state.next_deadline_ms - state.now_ms) / 1000
    if ahead < 0:
        return f"{text}; the next deadline passed {duration(-ahead)} ago"
    return f"{text}; the next deadline is in {duration(ahead)}"


def _outbox(state: State) -> str:
    if state.outbox_oldest_ms is None:
        return "empty"
    count = state.outbox_expirations
    waiting = f"{state.outbox_entries} entries" if count is None else f"{count} expiration{'s' * (count != 1)}"
    age = max(state.now_ms - state.outbox_oldest_ms, 0) / 1000
    return f"{waiting} not acked by the broker; the oldest was claimed {duration(age)} ago"


def _holder(lease: LeaseState | None, now_ms: int) -> Cell:
    if lease is None:
        return Text("none: no bridge has run here, or the lease was lost", "yellow")
    fence = f"fence {lease.fence}"
    if lease.holder is None:
        return Text(f"free: the last bridge gave it back; {fence}", "yellow")
    left = (lease.until_ms - now_ms) / 1000
    if left <= 0:
        return Text(f"free: {lease.holder} let it lapse {duration(-left)} ago; {fence}", "yellow")
    return Text(f"{lease.holder}, for {duration(left)} more; {fence}", "green")


def _moment(at_ms: int, now_ms: int) -> str:
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
    return f"{text.removesuffix('+00:00')} UTC, {duration(max(now_ms - at_ms, 0) / 1000)} ago"


def _as_json(settings: Settings, server: Server | None, state: State) -> dict[str, Any]:
    endpoint, lease = Endpoint.of(settings), state.lease
    return {
        "redis": {
            "endpoint": str(endpoint),
            "db": endpoint.db,
            "product": server and server.product,
            "version": server and server.version,
            "role": server and server.role,
        },
        "namespace": settings.namespace,
        "now_ms": state.now_ms,
        "ledger": {"keys": state.ledger_size, "next_deadline_ms": state.next_deadline_ms},
        "outbox": {
            "entries": state.outbox_entries,
            "expirations": state.outbox_expirations,
            "oldest_ms": state.outbox_oldest_ms,
        },
        "lease": lease
        and {
            "held": lease.holder is not None and lease.until_ms > state.now_ms,
            "holder": lease.holder,
            "until_ms": lease.until_ms,
            "fence": lease.fence,
            "handled_up_to_ms": lease.seen_ms,
        },
        "dead_letters": state.dead_letters,
    }
