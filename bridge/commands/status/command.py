"""`expiry-bridge status`: a look at the bridge's own keys in Redis, at its figures where it answers, at the broker.

Reads only. Shows no user key, unless it is asked to.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from rich.text import Text

from bridge.commands.readers import Arrival, Tail, tail
from bridge.commands.screen import Screen, key_as_json, print_json
from bridge.commands.status import metrics as figures
from bridge.commands.status.metrics import Figures, Unanswered, ask
from bridge.commands.status.view import SHARES, Look, field_of, lines
from bridge.errors import ConfigurationError, NotConnected, Refused
from bridge.expiration import Expiration, FieldExpiration
from bridge.redis.admin.ledger_state import LeaseState, LedgerState, differing, mixed, total
from bridge.redis.admin.nodes import Nodes, NodeState
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.tasks import end
from bridge.telemetry import logs
from bridge.telemetry.field_metrics import AMBIGUOUS
from bridge.telemetry.lag import quantile

SHOWN = 5
"""Expirations shown, of those that are next, of those that were claimed last, and of those published last."""
PATIENCE = 2.0
"""Seconds for the broker to say what it stores."""
INTERVAL = 1.0
"""Seconds between two looks of a live view."""
WINDOW = 10
"""Looks that rates and lags of a live view are taken over."""


def status(settings: Settings, *, as_json: bool, watch: bool, show_keys: bool) -> int:
    """Print the status. The exit status: 0; `watch` only ends by an interrupt.

    Raises NotConnected or Refused where Redis does not tell (`watch` shows it, and goes on), ConfigurationError where
    `watch` has no terminal to write to.
    """
    logs.configure(settings.log_level, settings.log_format)
    if watch:
        screen = Screen()
        if not screen.live:
            raise ConfigurationError(["status --watch needs a terminal; for a program there is --json"])
        asyncio.run(_watch(settings, screen, show_keys=show_keys))
    look = asyncio.run(_once(settings))
    if as_json:
        print_json(_as_json(settings, look, show_keys=show_keys))
    else:
        screen = Screen()
        screen.say(Text(_headline(settings, look), "bold"))
        screen.rows(lines(look, show_keys=show_keys), indent=2)
    return 0


async def _once(settings: Settings) -> Look:
    nodes, published = Nodes(settings), tail(settings, Endpoint.of(settings).db)
    try:
        return await _look(nodes, published)
    finally:
        await nodes.close()
        if published is not None:
            await published.close()


async def _watch(settings: Settings, screen: Screen, *, show_keys: bool) -> NoReturn:
    nodes, published = Nodes(settings), tail(settings, Endpoint.of(settings).db)
    told: deque[Figures] = deque(maxlen=WINDOW)
    try:
        with screen.watching() as show:
            while True:
                try:
                    look = await _look(nodes, published)
                except (NotConnected, Refused) as error:
                    show(Text(str(error), "bold red"), ())
                else:
                    earlier = _remember(told, look.figures)
                    headline = Text(_headline(settings, look), "bold")
                    show(headline, lines(look, earlier, show_keys=show_keys))
                await asyncio.sleep(INTERVAL)
    finally:
        await nodes.close()
        if published is not None:
            await published.close()


def _remember(told: deque[Figures], found: Figures | str) -> Figures | None:
    """The figures to compare these with: the oldest of the window, if they are from the same process."""
    if isinstance(found, str) or (told and not found.follows(told[-1])):
        told.clear()
    if isinstance(found, str):
        return None
    earlier = told[0] if told else None
    told.append(found)
    return earlier


async def _look(nodes: Nodes, published: Tail | None) -> Look:
    asked = asyncio.create_task(_figures(nodes.settings), name="figures")
    read = asyncio.create_task(_last(published), name="published")
    try:
        seen, silent = await nodes.look(SHOWN)
        state, some = total([one.state for one in seen]), mixed([one.expirations for one in seen], SHOWN)
        differences, limit = differing(state, nodes.settings), nodes.settings.values_limit * len(state.leases)
        others = None if nodes.topology is None else silent
        return Look(seen, others, state, some, await read, await asked, differences, limit)
    finally:
        await end([asked, read])


async def _last(published: Tail | None) -> Sequence[Arrival] | str:
    if published is None:
        return ()
    try:
        async with asyncio.timeout(PATIENCE):
            return await published.last(SHOWN)
    except TimeoutError:
        reason = f"the broker does not answer within {PATIENCE:g} s"
    except (NotConnected, Refused) as error:
        reason = str(error)
    await published.close()  # and connect anew, the next time
    return reason


async def _figures(settings: Settings) -> Figures | str:
    try:
        return await ask(settings)
    except Unanswered as reason:
        return str(reason)


def _headline(settings: Settings, look: Look) -> str:
    server, db = look.nodes[0].server, settings.redis_address().db
    product = f"{server.product} {server.version}" if server else "Redis (version cannot be read)"
    if look.silent is not None:
        count = len(look.nodes) + len(look.silent)
        return f"{product}, a cluster of {count} primar{'ies' if count > 1 else 'y'}, namespace {settings.namespace}"
    role = "" if server is None or server.primary else " (a replica)"
    return f"{product} at {look.nodes[0].endpoint}{role}, db {db}, namespace {settings.namespace}"


def _as_json(settings: Settings, look: Look, *, show_keys: bool) -> dict[str, Any]:
    told = look.figures
    return {
        "redis": {
            **_redis(look.nodes[0]),
            "endpoint": ",".join(seen.endpoint for seen in look.nodes),
            "db": settings.redis_address().db,
        },
        **({} if look.silent is None else {"cluster": _cluster(look.nodes, look.silent)}),
        "namespace": settings.namespace,
        **_state(look.state),
        "settings_differ": look.differing,
        "leases": [_lease(look.state, lease) for lease in look.state.leases],
        "next_to_expire": [
            {"deadline_ms": deadline_ms, **(key_as_json(key) if show_keys else {})}
            for key, deadline_ms in look.expirations.ahead
        ],
        "claimed_last": [_event(event, show_keys=show_keys) for event in look.expirations.waiting],
        "broker": _broker(look.published, show_keys=show_keys),
        "bridge": {"reachable": False, "reason": told} if isinstance(told, str) else _bridge(told),
    }


def _redis(seen: NodeState) -> dict[str, Any]:
    server = seen.server
    return {
        "endpoint": seen.endpoint,
        "product": server and server.product,
        "version": server and server.version,
        "role": server and server.role,
    }


def _cluster(nodes: Sequence[NodeState], silent: Mapping[str, str]) -> dict[str, Any]:
    return {
        "primaries": [_redis(seen) | {"number": seen.number} | _state(seen.state) for seen in nodes],
        "unreadable": [{"endpoint": name, "reason": reason} for name, reason in silent.items()],
    }


def _state(state: LedgerState) -> dict[str, Any]:
    return {
        "now_ms": state.now_ms,
        "ledger": {"keys": state.ledger_size, "next_deadline_ms": state.next_deadline_ms},
        "outbox": {
            "entries": state.outbox_entries,
            "expirations": state.outbox_expirations,
            "oldest_ms": state.outbox_oldest_ms,
        },
        "lease": _lease(state, state.lease),
        "dead_letters": state.dead_letters,
        "moved": state.moved,
        **({} if state.values is None else {"values": asdict(state.values)}),
        **({} if state.fields is None else {"fields": asdict(state.fields)}),
    }


def _lease(state: LedgerState, lease: LeaseState | None) -> dict[str, Any] | None:
    return (
        None
        if lease is None
        else {
            "held": lease.held(state.now_ms),
            "holder": lease.holder,
            "until_ms": lease.until_ms,
            "fence": lease.fence,
            "handled_up_to_ms": lease.handled_ms,
            "settings": lease.fingerprint,
        }
    )


def _broker(published: Sequence[Arrival] | str, *, show_keys: bool) -> dict[str, Any]:
    if isinstance(published, str):
        return {"readable": False, "reason": published}
    return {"readable": True, "published_last": [_event(event, show_keys=show_keys) for event in published]}


def _event(event: Expiration | FieldExpiration | Arrival, *, show_keys: bool) -> dict[str, Any]:
    field = field_of(event)
    told = {
        "kind": "key" if field is None else "field",
        "deadline_ms": event.deadline_ms,
        "observed_ms": event.observed_ms,
        "via": event.via.value,
    }
    if not show_keys:
        return told
    return told | key_as_json(event.key) | ({} if field is None else key_as_json(field, "field"))


def _bridge(told: Figures) -> dict[str, Any]:
    """Counters are since its start, and so are the lags."""
    values = told.values
    return {
        "reachable": True,
        "url": told.url,
        "version": told.version,
        "uptime_seconds": told.uptime,
        "ready": not told.unready,
        "reasons": told.unready,
        "claimed": {via: int(values[f"{figures.CLAIMED}.{via}"]) for via in ("notification", "sweep")},
        "published": int(values[figures.PUBLISHED]),
        "retried": int(values[figures.RETRIED]),
        "in_flight": int(values[figures.IN_FLIGHT]),
        "per_second": {
            name: told.rate(metric, None)
            for name, metric in (("claimed", figures.CLAIMED), ("published", figures.PUBLISHED))
        },
        "lag_seconds": {f"p{share * 100:g}": quantile(share, told.lags) for share in SHARES},
        "gaps": {
            "open": bool(values[figures.GAP_OPEN]),
            "total": int(values[figures.GAPS]),
            "missed": int(values[figures.MISSED]),
            "unmeasured": int(values.get(figures.UNMEASURED, 0)),
            "recovered": int(values[figures.RECOVERED]),
            "ambiguous": int(values[figures.AMBIGUOUS]),
        },
        "values": {outcome: int(values.get(f"{figures.VALUES}.{outcome}", 0)) for outcome in figures.OUTCOMES},
        "values_doubt": told.doubt,
        "fields": {
            "claimed": {via: int(values.get(f"{figures.FIELDS}.{via}", 0)) for via in ("notification", "sweep")},
            "ambiguous": {kind: int(values.get(f"{figures.LOST_FIELDS}.{kind}", 0)) for kind in AMBIGUOUS},
            "missed": None,
        },
        "canary_age_seconds": values[figures.CANARY_AGE],
        "scan": {
            "progress": values[figures.SCAN_PROGRESS],
            "keys": int(values[figures.SCAN_KEYS]),
            "seconds": values[figures.SCAN_SECONDS],
        },
    }
