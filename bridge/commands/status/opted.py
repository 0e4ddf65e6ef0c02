"""What `status` says of values and of fields of hashes, where the settings ask for them. Shows none of them."""

from collections.abc import Iterator, Mapping

from rich.text import Text

from bridge.commands.screen import counted, from_now, size
from bridge.commands.status import metrics as figures
from bridge.expiration import MISSING
from bridge.redis.admin.ledger_state import FieldState, ValueState
from bridge.telemetry.field_metrics import AMBIGUOUS
from bridge.telemetry.metrics import EXACT, NOT_EXACT

NEAR = 0.9
"""The share of their bound at which values catch the eye."""
_TO_BE_MENDED = ("not_permitted", "outbox_full")


def values(state: ValueState, limit: int) -> Text:
    """Those in Redis. `limit`: their bound, in bytes."""
    if not state.held and not state.bytes:
        return Text("none in Redis now")
    text = f"{state.held:,} of keys that are about to expire; {size(state.bytes)} with those in the outbox"
    return Text(f"{text}, of {size(limit)} at most", "yellow" if state.bytes > NEAR * limit else "")


def fields(state: FieldState, now_ms: int) -> Text:
    """The field ledger."""
    about = "about " if state.estimated else ""
    text = f"{about}{counted(state.recorded, 'field')} of {counted(state.hashes, 'hash', 'hashes')}"
    if state.next_deadline_ms is not None:
        text += f"; the next deadline of a field: {from_now(state.next_deadline_ms, now_ms)}"
    text += f"; {state.ambiguous:,} may have expired, and were not announced" if state.ambiguous else ""
    if state.excluded:
        return Text(f"{text}; {counted(state.excluded, 'hash', 'hashes')} left out: too many fields", "bold red")
    return Text(text)


def delivered(counts: Mapping[str, float]) -> Iterator[tuple[str, Text]]:
    """What became of values since a bridge's start, by the names of `figures`."""
    sent = {outcome: counts.get(f"{figures.VALUES}.{outcome}", 0) for outcome in figures.OUTCOMES}
    if any(sent.values()):
        missing = _listed({outcome: sent[outcome] for outcome in MISSING})
        text = f"{sent[EXACT]:,.0f} exact, {sent[NOT_EXACT]:,.0f} not exact" + (f"; none: {missing}" if missing else "")
        yield "values delivered", Text(text, "yellow" if any(sent[outcome] for outcome in _TO_BE_MENDED) else "")


def claimed(counts: Mapping[str, float]) -> Iterator[tuple[str, Text]]:
    """What became of fields since a bridge's start, likewise."""
    if figures.FIELDS in counts:
        by = ", ".join(f"{counts[f'{figures.FIELDS}.{via}']:,.0f} by {via}" for via in ("notification", "sweep"))
        lost = _listed({kind: counts[f"{figures.LOST_FIELDS}.{kind}"] for kind in AMBIGUOUS})
        yield "fields claimed", Text(f"{by}; ambiguous: {lost or 'none'}; missed: not known")


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{count:,.0f} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)
