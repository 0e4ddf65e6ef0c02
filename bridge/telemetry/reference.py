"""Metrics and log events as operators read them: the two tables in the README. `make docs` puts them there.

Made of what the code does, so that they cannot be wrong: the metrics are those of a registry, and each event is what
its method logs when it is called.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Final, get_type_hints

from structlog.testing import capture_logs

from bridge.endings import Ending
from bridge.expiration import Value
from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry

_SUFFIXES: Final = {"counter": "_total", "info": "_info"}
"""What the exposition appends to a name."""
_OF_ALL: Final = {"event", "log_level"}
_FIELDS: Final = {"exc_info": "exception"}
"""What a line calls a field."""
_EXAMPLES: Final[dict[object, Sequence[object]]] = {
    str: ["text"],
    str | None: ["text"],
    int: [1],
    int | None: [1],
    float: [1.0],
    bool: [True, False],
    Sequence[str]: [["text"]],
    Sequence[float]: [[1.0]],
    Callable[[], float]: [float],
    Iterable[Value]: [[]],
    Ending: list(Ending),
    BaseException: [RuntimeError("text")],
    BaseException | None: [RuntimeError("text")],
}
"""Values of all types that events take. Bytes are left out on purpose: no event gets a key."""


def metrics() -> str:
    """The table of all metrics of the bridge's own, in Markdown: name with its labels, type, meaning."""
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    telemetry = Telemetry()
    shard = telemetry.shard()
    shard.node_named("any")
    shard.fields_bridged()
    for family in telemetry.metrics.registry.collect():
        if family.name.startswith("bridge_"):
            name = family.name + _SUFFIXES.get(family.type, "")
            labels: dict[str, list[str]] = {}
            for sample in family.samples:
                for label, value in sample.labels.items() if sample.name == name else ():
                    labels.setdefault(label, []).append(f"`{value}`")
            shown = f"{{{','.join(labels)}}}" if labels else ""
            # Of a label whose values depend on where the bridge runs, there is but one here.
            values = "".join(f" {label}: {', '.join(found)}." for label, found in labels.items() if len(found) > 1)
            rows.append(
                f"| `{name}{shown}` | {family.type.replace('info', 'gauge')} | {family.documentation}{values} |"
            )
    return "\n".join(rows) + "\n"


def events() -> str:
    """The table of all log events, in Markdown: name, level, fields, meaning."""
    rows = ["| event | level | fields | meaning |", "|---|---|---|---|"]
    for name, (levels, fields, meaning) in sorted(logged().items()):
        shown = ", ".join(f"`{field}`" for field in fields) or "–"
        rows.append(f"| `{name}` | {' or '.join(levels)} | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def logged() -> dict[str, tuple[list[str], list[str], str]]:
    """Event → its levels, its fields, its meaning. Raises ValueError where two methods log the same event."""
    found: dict[str, tuple[list[str], list[str], str]] = {}
    for method in _methods():
        with capture_logs() as lines:
            for arguments in _calls(method):
                method(**arguments)
        for name in dict.fromkeys(str(line["event"]) for line in lines):
            if name in found:
                raise ValueError(f"two methods log {name}")
            mine = [line for line in lines if line["event"] == name]
            levels = dict.fromkeys(str(line["log_level"]) for line in mine)
            fields = dict.fromkeys(_FIELDS.get(field, field) for line in mine for field in line if field not in _OF_ALL)
            meaning = inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
            found[name] = (list(levels), list(fields), meaning.removesuffix("."))
    return found


def _methods() -> Iterator[Callable[..., None]]:
    telemetry = Telemetry()
    for part in (telemetry, telemetry.shard()):
        for name, method in inspect.getmembers(part, inspect.ismethod):
            if not name.startswith("_") and name != "shard":
                yield method
    yield from (logs.failed, logs.refused, logs.secret_exposed, logs.library_failed, logs.lines_dropped)


def _calls(method: Callable[..., None]) -> Iterator[dict[str, object]]:
    """Arguments that make it log everything it can: both values of each flag, each ending."""
    hints = get_type_hints(method)
    names = list(inspect.signature(method).parameters)
    for values in product(*(_EXAMPLES[hints[name]] for name in names)):
        yield dict(zip(names, values, strict=True))
