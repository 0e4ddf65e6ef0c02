"""`expiry-bridge dead`: the messages that the broker refused permanently. Look at them, send them again, drop them.

Guarantees: a message sent again keeps its id, and leaves the stream of dead letters only when the broker has acked it;
killed in between, it may be sent once more. `list` shows no user key unless asked to; `show` does, and the key's value
only when asked to.
Exit status 1: an id is unknown (then nothing was done), or something could not be sent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.text import Text

from bridge.clock import SystemClock
from bridge.cloudevents import Encoder
from bridge.commands.screen import Cell, Screen, key_as_json, key_for_people, print_json, printable
from bridge.delivery.context import Context
from bridge.delivery.loop import Delivery
from bridge.errors import BridgeError
from bridge.expiration import Event, Expiration, FieldExpiration, GapRecord, Value
from bridge.limits import Limits
from bridge.redis.admin.dead_letters import DeadLetters, Kept, Retrial
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.sinks import create
from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry

UNREADABLE = "cannot be read: not written by a bridge"
REASONS_SHOWN = 5
IDS_NAMED = 3


class UnknownLetter(BridgeError):
    """No dead letter has this id."""


def list_letters(settings: Settings, *, limit: int, show_keys: bool, as_json: bool) -> int:
    """Print the oldest `limit` dead letters. The exit status: 0."""

    async def work(letters: DeadLetters) -> int:
        total, found = await letters.count(), list[Kept]()
        async for kept in letters.all():
            if len(found) >= limit:
                break
            found.append(kept)
        if as_json:
            print_json({"total": total, "dead_letters": [_as_json(kept, show_key=show_keys) for kept in found]})
        else:
            _show_list(found, total, show_keys=show_keys)
        return 0

    return _run(settings, work)


def show_letter(settings: Settings, wanted: str, *, show_value: bool, as_json: bool) -> int:
    """Print one, with its key and the event that the broker refused. The exit status: 0. Raises UnknownLetter.

    `show_value`: the event with the value of the key, if it has one.
    """

    async def work(letters: DeadLetters) -> int:
        (kept,) = await _find(letters, [wanted])
        event = None if kept.letter is None else _event(settings, _shown(kept.letter.event, show_value=show_value))
        if as_json:
            print_json(_as_json(kept, show_key=True) | {"event": event})
        else:
            _show_one(kept, event)
        return 0

    return _run(settings, work)


def retry_letters(settings: Settings, ids: Sequence[str] | None) -> int:
    """Send these (None: all that there are now) again. The exit status: 1 if some stay. Raises UnknownLetter."""

    async def work(letters: DeadLetters) -> int:
        last = await letters.last()
        chosen = await _find(letters, ids) if ids is not None else None
        if not last:
            Screen().say("There are no dead letters.")
            return 0
        retrial = Retrial(letters, last, chosen)
        await _deliver(settings, retrial)
        return _show_outcome(retrial)

    return _run(settings, work)


def drop_letters(settings: Settings, ids: Sequence[str]) -> int:
    """Remove these permanently. Returns the exit status, 0. Raises UnknownLetter; then nothing was removed."""

    async def work(letters: DeadLetters) -> int:
        found = await _find(letters, ids)
        dropped = await letters.remove([kept.position for kept in found])
        Screen().say(f"Dropped {_count(dropped)}; {await letters.count()} left.")
        return 0

    return _run(settings, work)


def _run(settings: Settings, work: Callable[[DeadLetters], Awaitable[int]]) -> int:
    logs.configure(settings.log_level, settings.log_format)

    async def connected() -> int:
        letters = DeadLetters(settings)
        try:
            await letters.locate()
            return await work(letters)
        finally:
            await letters.close()

    return asyncio.run(connected())


async def _find(letters: DeadLetters, ids: Sequence[str]) -> list[Kept]:
    """Those with these ids, oldest first, each once."""
    found = await letters.find(ids)
    unknown = [wanted for wanted in dict.fromkeys(ids) if wanted not in found]
    if unknown:
        more = f" and {len(unknown) - IDS_NAMED} more" if len(unknown) > IDS_NAMED else ""
        named = ", ".join(printable(wanted) for wanted in unknown[:IDS_NAMED])
        raise UnknownLetter(f"no dead letter has the id {named}{more}: see `expiry-bridge dead list`; nothing was done")
    return list(found.values())


async def _deliver(settings: Settings, retrial: Retrial) -> None:
    """Raises NotConnected or Refused where the broker is not to be had; once it was, waits for it like `run`."""
    limits, clock, telemetry, db = Limits(), SystemClock(), Telemetry(), Endpoint.of(settings).db
    sink = create(settings, db, clock, limits, telemetry)
    encoder = Encoder(settings.source, db, settings.content_mode)
    # The lag of what was dead is of no interest, hence any clock.
    context = Context(clock, limits.delivery, telemetry, lambda: time.time() * 1000)
    delivery = Delivery(retrial, sink, encoder, context)
    await (await sink.connect()).close()  # delivery would wait for a broker that is not there
    try:
        await delivery.run()
    finally:
        await delivery.close()


# How it looks.


def _show_list(found: Sequence[Kept], total: int, *, show_keys: bool) -> None:
    screen = Screen()
    if not found:
        screen.say("There are no dead letters." if not total else f"There are {_count(total)}.")
        return
    head = ["id", "refused at (UTC)", *(["key"] if show_keys else []), "reason"]
    rows: list[Sequence[Cell]] = [[Text(name, "bold") for name in head]]
    for kept in found:
        key = [_key(kept)] if show_keys else []
        rows.append([kept.id, _moment(kept.died_ms), *key, _reason(kept)])
    screen.rows(rows)
    if total > len(found):
        screen.say(f"The oldest {len(found)} of {total}: --limit N shows more.", style="dim")


def _show_one(kept: Kept, event: object) -> None:
    lines: list[tuple[str, Cell]] = [
        ("id", kept.id),
        ("reason", _reason(kept)),
        ("refused at", f"{_moment(kept.died_ms)} UTC"),
    ]
    told = kept.letter and kept.letter.event
    if kept.remark:
        lines.append(("key", _key(kept)))
    if isinstance(told, Expiration | FieldExpiration):
        deadline = told.deadline_ms
        lines += [
            ("key", _key(kept)),
            *([("field", key_for_people(told.field))] if isinstance(told, FieldExpiration) else []),
            ("deadline", "unknown" if deadline is None else f"{_moment(deadline)} UTC"),
            ("via", told.via.value),
            *([("value", _about(told.value))] if isinstance(told, Expiration) and told.value is not None else []),
        ]
    if told is not None:
        lines.append(("event", orjson.dumps(event).decode()))
    Screen().rows([[Text(label, "cyan"), value] for label, value in lines])


def _show_outcome(retrial: Retrial) -> int:
    screen = Screen()
    screen.say(f"Sent, acked and removed: {_count(retrial.sent)}.")
    if retrial.refused:
        screen.say(f"Refused again, and kept: {_count(len(retrial.refused))}.", style="bold red")
        reasons = Counter(retrial.refused.values()).most_common()
        for reason, count in reasons[:REASONS_SHOWN]:
            screen.say(f"{count} × {printable(reason)}", indent=2)
        if len(reasons) > REASONS_SHOWN:
            screen.say(f"and {len(reasons) - REASONS_SHOWN} other reasons", indent=2)
    if retrial.unreadable:
        screen.say(f"Not sent, because not written by a bridge: {_count(len(retrial.unreadable))}.", style="bold red")
    if retrial.remarks:
        screen.say(f"Not sent, because it is only a remark: {_count(len(retrial.remarks))}.", style="bold red")
    return 1 if retrial.refused or retrial.unreadable or retrial.remarks else 0


def _as_json(kept: Kept, *, show_key: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": kept.id, "refused_at_ms": kept.died_ms, "reason": _reason(kept)}
    if kept.letter is not None:
        event = kept.letter.event
        found["reason"] = kept.letter.reason
        if not isinstance(event, GapRecord):
            found |= {"deadline_ms": event.deadline_ms, "observed_ms": event.observed_ms, "via": event.via.value}
            if show_key:
                found |= key_as_json(event.key)
            if show_key and isinstance(event, FieldExpiration):
                found |= key_as_json(event.field, "field")
        else:
            found |= {"opened_ms": event.opened_ms, "closed_ms": event.closed_ms, "cause": event.cause}
    elif kept.remark and show_key:
        found |= key_as_json(kept.about)
    return found


def _shown(event: Event, *, show_value: bool) -> Event:
    """Without its value, unless requested: looking for what went wrong does not need it."""
    return event if show_value or not isinstance(event, Expiration) else event._replace(value=None)


def _event(settings: Settings, event: Event) -> object:
    encoder = Encoder(settings.source, Endpoint.of(settings).db, "structured")
    return orjson.loads(encoder.encode(event).body)


def _reason(kept: Kept) -> str:
    return printable(kept.remark or UNREADABLE) if kept.letter is None else printable(kept.letter.reason)


def _about(value: Value) -> str:
    """What there is, not what it is."""
    if value.content is None:
        return f"none: {value.missing}"
    return f"{value.kind}, {value.size} bytes, {'exact' if value.exact else 'not exact'} (--show-values prints it)"


def _key(kept: Kept) -> str:
    return key_for_people(kept.about if kept.letter is None else kept.letter.event.key)


def _moment(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):  # past the year 9999
        return f"{unix_ms} ms"


def _count(count: int) -> str:
    return f"{count} dead letter{'s' * (count != 1)}"
