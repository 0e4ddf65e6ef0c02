"""The JSON schema of `/status.json`, made of the types that it is made of."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from bridge.telemetry.page.shape import VERSION, Status

DRAFT = "http://json-schema.org/draft-07/schema#"
_PLAIN: dict[object, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def status_schema() -> dict[str, Any]:
    """Complete by itself, with the meanings as descriptions. Further members are allowed: they may come at any time."""
    return {"$schema": DRAFT, "title": f"/status.json, version {VERSION}", **_schema(Status)}


def status_table() -> str:
    """All members, in Markdown: path, type, meaning."""
    rows = ["| member | type | meaning |", "|---|---|---|"]
    rows += [f"| `{path}` | {kind} | {meaning} |" for path, kind, meaning in _walk(status_schema(), "")]
    return "\n".join(rows) + "\n"


def members() -> dict[str, str]:
    """Path of each member → its types, without the meanings: what a version promises."""
    return {path: kind for path, kind, _ in _walk(status_schema(), "")}


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if path and not path.endswith("[]"):
        yield path, " or ".join(kinds), schema.get("description", "")
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, f"{path}.{name}".removeprefix("."))
    if schema["type"] == "array":
        yield from _walk(schema["items"], f"{path}[]")


def _schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401, PLR0911 - any type
    if is_typeddict(kind):
        return _of_members(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _schema(arguments[0]) | {"description": arguments[1]}
    if origin in {types.UnionType, Union}:
        return {"type": [_PLAIN[argument] for argument in arguments]}
    if origin is Literal:
        return {"type": "string", "enum": [*arguments]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"type": _PLAIN[kind]}


def _of_members(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a TypedDict
    hints = get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").removesuffix("."),
        "required": [*hints],
        "properties": {name: _schema(hint) for name, hint in hints.items()},
    }
