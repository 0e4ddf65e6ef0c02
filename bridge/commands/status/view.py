"""How `expiry-bridge status` looks to people: one label and one line for each thing there is to know."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.text import Text

from bridge.commands.readers import Arrival
from bridge.commands.screen import Cell, counted, duration, from_now, key_for_people
from bridge.commands.status import metrics as figures
from bridge.commands.status import opted
from bridge.commands.status.metrics import Figures
from bridge.expiration import Expiration, FieldExpiration
from bridge.limits import EpochLimits
from bridge.redis.admin.ledger_state import Expirations, LeaseState, LedgerState
from bridge.redis.admin.nodes import NodeState
from bridge.telemetry.lag import quantile

LATE_SECONDS = 10.0
"""What waits for longer catches the eye."""
SHARES = (0.5, 0.9, 0.99)
"""Of the lags, the percentiles shown."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that was found out at one moment."""

    nodes: Sequence[NodeState]
    """The server; of a cluster, the primaries that tell."""
    silent: Mapping[str, str] | None
    """Why others do not. None where there is no cluster."""
    state: LedgerState
    """Of all of them together."""
    expirations: Expirations
    published: Sequence[Arrival] | str
    """The last of them that the broker stores, newest first; or why they cannot be read."""
    figures: Figures | str
    """Of the bridge itself; or why there are none."""
    differing: Mapping[str, str]
    """Bridges with other settings than these, where all must agree; and how they differ."""
    values_limit: int
    """Bytes of values that may be in Redis."""


def lines(look: Look, earlier: Figures | None = None, *, show_keys: bool) -> list[tuple[Cell, Cell]]:
    """Labels and their texts. Rates and lags are since `earlier`, else since the bridge's start."""
    found = [*_of_redis(look), *_of_bridge(look.figures, earlier), *_of_expirations(look, show_keys=show_keys)]
    return [(Text(label, "cyan"), value) for label, value in found]


def _of_redis(look: Look) -> Iterator[tuple[str, Cell]]:
    state = look.state
    handled = [lease.handled_ms for lease in state.leases if lease is not None and lease.handled_ms is not None]
    seen = min(handled) if len(handled) == len(state.leases) else None
    yield "deadline ledger", _ledger(state)
    if state.fields is not None:
        yield "field ledger", opted.fields(state.fields, state.now_ms)
    if state.values is not None:
        yield "values", opted.values(state.values, look.values_limit)
    yield "outbox", _outbox(state)
    if look.silent is None:
        for shard, lease in enumerate(state.leases):
            yield "lease" if len(state.leases) == 1 else f"lease of shard {shard}", _holder(lease, state.now_ms)
    else:
        yield from _of_cluster(look.nodes, look.silent)
    for bridge, differences in look.differing.items():
        yield "settings", Text(f"{bridge} has others than this command: {differences}", "yellow")
    yield "handled up to", _moment(seen, state.now_ms) if seen else "nothing yet"
    yield "dead letters", Text(str(state.dead_letters), "bold red" if state.dead_letters else "")


def _of_cluster(nodes: Sequence[NodeState], silent: Mapping[str, str]) -> Iterator[tuple[str, Cell]]:
    for node in nodes:
        state = node.state
        counts = [
            _keys(state),
            f"{state.outbox_entries if state.outbox_expirations is None else state.outbox_expirations:,} in the outbox",
        ]
        counts += [f"{state.moved:,} on their way with their keys"] if state.moved else []
        counts += [f"{state.dead_letters:,} dead"] if state.dead_letters else []
        holder = _holder(state.lease, state.now_ms)
        yield f"ledger {node.number} on {node.endpoint}", Text.assemble(holder, f"; {', '.join(counts)}")
    for name, reason in silent.items():
        yield f"{name}", Text(f"left out: {reason}", "bold red")


def _keys(state: LedgerState) -> str:
    return counted(state.ledger_size, "key")


def _ledger(state: LedgerState) -> Text:
    text = _keys(state)
    if state.next_deadline_ms is None:
        return Text(text)
    ahead = (state.next_deadline_ms - state.now_ms) / 1000
    if ahead < 0:
        return _late(f"{text}; the next deadline passed {duration(-ahead)} ago", -ahead)
    return Text(f"{text}; the next deadline is in {duration(ahead)}")


def _outbox(state: LedgerState) -> Text:
    if state.outbox_oldest_ms is None:
        return Text("empty")
    count = state.outbox_expirations
    waiting = f"{state.outbox_entries:,} entries" if count is None else f"{counted(count, 'expiration')}"
    text = f"{waiting} not acked by the broker; the oldest was claimed {_ago(state.outbox_oldest_ms, state.now_ms)}"
    return _late(text, (state.now_ms - state.outbox_oldest_ms) / 1000)


def _late(text: str, seconds: float) -> Text:
    return Text(text, "yellow" if seconds > LATE_SECONDS else "")


def _holder(lease: LeaseState | None, now_ms: int) -> Text:
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
    return f"{text.removesuffix('+00:00')} UTC, {_ago(at_ms, now_ms)}"


def _ago(at_ms: int, now_ms: int) -> str:
    return f"{duration(max(now_ms - at_ms, 0) / 1000)} ago"


# What only the bridge itself knows.


def _of_bridge(told: Figures | str, earlier: Figures | None) -> Iterator[tuple[str, Cell]]:
    if isinstance(told, str):
        yield "bridge", Text(f"no rates, lags or gaps: {told}", "yellow")
        return
    values = told.values
    yield "bridge", _readiness(told)
    by = ", ".join(f"{values[f'{figures.CLAIMED}.{via}']:,.0f} by {via}" for via in ("notification", "sweep"))
    yield "claimed", f"{_rate(told, figures.CLAIMED, earlier)}; {by}"
    yield from opted.claimed(values)
    again = f"{values[figures.RETRIED]:,.0f} sent again, {values[figures.IN_FLIGHT]:,.0f} in flight"
    yield "published", f"{_rate(told, figures.PUBLISHED, earlier)}; {again}"
    yield from opted.delivered(values)
    if told.doubt:
        yield "values doubted", Text(told.doubt, "yellow")
    yield "lag", _lag(told, earlier)
    yield "gaps", _gaps(told)
    if values[figures.LEASE_HELD]:
        yield "canary", _canary(values[figures.CANARY_AGE])
        yield "scan", _scan(told)


def _canary(age: float) -> Text:
    text = f"heard {duration(age)} ago; due every {EpochLimits().canary:g} s"
    return _late(text, age)


def _readiness(told: Figures) -> Text:
    up = "" if told.uptime is None else f", up {duration(told.uptime)}"
    what = f"version {told.version}{up}, at {told.url}"
    if not told.unready:
        return Text(f"ready; {what}", "green")
    return Text(f"not ready ({'; '.join(told.unready.values())}); {what}", "yellow")


def _rate(told: Figures, name: str, earlier: Figures | None) -> str:
    rate, total = told.rate(name, earlier), f"{told.values[name]:,.0f}"
    if rate is None:
        return total
    return f"{total}, {rate:,.1f}/s{' on average' if earlier is None else ''}"


def _lag(told: Figures, earlier: Figures | None) -> str:
    lags = told.lags if earlier is None else told.lags_since(earlier)
    since = "since the start" if earlier is None else f"in the last {duration(told.at - earlier.at)}"
    shown = [f"p{share * 100:g} {duration(lag)}" for share in SHARES if (lag := quantile(share, lags)) is not None]
    return f"{', '.join(shown)}, {since}" if shown else f"none known {since}"


def _gaps(told: Figures) -> Text:
    values = told.values
    unmeasured = values.get(figures.UNMEASURED, 0)
    unknown = f" (unknown of {unmeasured:,.0f})" if unmeasured else ""
    counts = f"missed {values[figures.MISSED]:,.0f}{unknown}, recovered {values[figures.RECOVERED]:,.0f}"
    text = f"{values[figures.GAPS]:,.0f}; {counts}, ambiguous {values[figures.AMBIGUOUS]:,.0f}"
    if open_ := values[figures.GAP_OPEN]:
        return Text(f"{text}; {'one is' if open_ == 1 else f'{open_:,.0f} are'} open", "yellow")
    # With several shards each gap counts what the whole node missed, and recovers only what is its own.
    several = sum(name.startswith(f"{figures.LEASE_HELD}.") for name in values) > 1
    return Text(text, "yellow" if values[figures.MISSED] > values[figures.RECOVERED] and not several else "")


def _scan(told: Figures) -> str:
    values = told.values
    progress, count = values[figures.SCAN_PROGRESS], values[figures.SCAN_KEYS]
    keys = f"{count:,.0f} key{'s' * (count != 1)}"
    if progress < 1:
        return f"{progress:.0%} done, {keys} so far"
    if not values[figures.SCAN_SECONDS]:
        return "none by this bridge so far: it went on from where another one was"
    return f"the last one read {keys} in {duration(values[figures.SCAN_SECONDS])}"


# A few expirations.


def _of_expirations(look: Look, *, show_keys: bool) -> Iterator[tuple[str, Cell]]:
    now_ms = look.state.now_ms
    ahead = [(key, from_now(deadline_ms, now_ms)) for key, deadline_ms in look.expirations.ahead]
    if show_keys:
        for index, (key, when) in enumerate(ahead):
            yield "" if index else "next to expire", f"{when}: {key_for_people(key)}"
    elif ahead:
        yield "next to expire", ", ".join(when for _, when in ahead)
    yield from _claims("claimed last", look.expirations.waiting, now_ms, show_keys=show_keys)
    if isinstance(look.published, str):
        yield "published last", f"cannot be read: {look.published}"
    else:
        yield from _claims("published last", look.published, now_ms, show_keys=show_keys)


def _claims(
    label: str, events: Sequence[Expiration | FieldExpiration | Arrival], now_ms: int, *, show_keys: bool
) -> Iterator[tuple[str, Cell]]:
    for index, event in enumerate(events):
        yield "" if index else label, _claimed(event, now_ms) + (f": {_name(event)}" if show_keys else "")


def field_of(event: Expiration | FieldExpiration | Arrival) -> bytes | None:
    """The field that expired; None if it was a key."""
    return event.field if isinstance(event, FieldExpiration | Arrival) else None


def _name(event: Expiration | FieldExpiration | Arrival) -> str:
    field = field_of(event)
    return key_for_people(event.key) + ("" if field is None else f", field {key_for_people(field)}")


def _claimed(event: Expiration | FieldExpiration | Arrival, now_ms: int) -> str:
    text = f"{_ago(event.observed_ms, now_ms)}, {'' if field_of(event) is None else 'a field, '}by {event.via}"
    if event.deadline_ms is None:
        return f"{text}, the deadline is unknown"
    return f"{text}, {duration(max(event.observed_ms - event.deadline_ms, 0) / 1000)} after its deadline"
