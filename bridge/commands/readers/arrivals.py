"""A stored message as a consumer understands it."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bridge.cloudevents import EXPIRED_TYPE, FIELD_TYPE
from bridge.expiration import Via


@dataclass(frozen=True, slots=True)
class Arrival:
    """One stored message that announces an expiration. All but `stored_ms` is what it says of itself."""

    id: str
    """Of the CloudEvent."""
    key: bytes
    deadline_ms: int | None
    observed_ms: int
    via: Via
    stored_ms: float | None
    """Unix milliseconds on the broker's clock; None where the broker does not tell."""
    field: bytes | None = None
    """Of the hash `key`; None where the key itself expired."""


def read_event(body: bytes, attributes: Mapping[str, str], stored_ms: float | None) -> Arrival | None:
    """What a message says, in either content mode: of the binary one, `attributes` are the CloudEvents attributes.

    None: it announces no expiration, or cannot be read.
    """
    try:
        content = orjson.loads(body)
        event: Mapping[str, Any] = content if "specversion" in content else {**attributes, "data": content}
        if event["type"] not in {EXPIRED_TYPE, FIELD_TYPE}:
            return None
        data = event["data"]
        deadline_ms = data["deadline_ms"]
        return Arrival(
            id=str(event["id"]),
            key=_bytes(data, "key"),
            deadline_ms=None if deadline_ms is None else int(deadline_ms),
            observed_ms=int(data["observed_ms"]),
            via=Via(data["via"]),
            stored_ms=stored_ms,
            field=_bytes(data, "field") if event["type"] == FIELD_TYPE else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        return None


def _bytes(data: Mapping[str, Any], name: str) -> bytes:
    return data[name].encode() if name in data else b64decode(data[f"{name}_base64"], validate=True)
