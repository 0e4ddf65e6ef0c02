"""An expiration as a CloudEvents 1.0 message: the one place that knows the message contract's field names.

Guaranteed: any key, and any deadline that Redis can hold, encodes, and the result is valid CloudEvents. Where a key or
a deadline cannot be what CloudEvents asks for, the `data` still says it exactly:

* `data.key` is the key, where it is UTF-8; else `data.key_base64` (RFC 4648, with padding).
* `subject` is the key, where a CloudEvents string may hold it. Else (no UTF-8, or a control character or
  non-character in it) it is percent-encoded: `%` and every byte outside printable ASCII become `%XX`. An empty key has
  no `subject`, because CloudEvents does not allow an empty one.
* `time` is the deadline, or the time of observation where the deadline is unknown or past the year 9999, which
  RFC 3339 cannot express. `data.deadline_ms` is the true one, up to 2^63 - 1.
"""

import re
from base64 import b64encode
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote_from_bytes

import orjson

from bridge.contracts import Message
from bridge.expiration import Event, Expiration, GapRecord

SPEC_VERSION = "1.0"
EXPIRED_TYPE = "redis.key.expired"
GAP_TYPE = "redis.expiry.gap"
STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
DATA_CONTENT_TYPE = "application/json"

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, Unix time."""

# What the CloudEvents type system keeps out of a String: C0 and C1 controls and Unicode's non-characters. (Surrogates,
# which it forbids as well, cannot come out of strict UTF-8 decoding.)
_NON_CHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_DISALLOWED = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NON_CHARACTERS}]")
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Encoder:
    """Encodes the events of one source and database. Two or three microseconds each; no state but caches."""

    def __init__(self, source: str, db: int, mode: Literal["structured", "binary"]) -> None:
        """`source` is the CloudEvents source; `mode` the content mode."""
        self._source = source
        self._db = db
        self._binary = mode == "binary"

    def encode(self, event: Event) -> Message:
        """The message of one event. Equal events give equal messages. Never raises."""
        return self._expiration(event) if isinstance(event, Expiration) else self._gap(event)

    def _expiration(self, expiration: Expiration) -> Message:
        key, deadline_ms, observed_ms = expiration.key, expiration.deadline_ms, expiration.observed_ms
        try:
            name, value = "key", key.decode()
        except UnicodeDecodeError:
            name, value = "key_base64", b64encode(key).decode()
            subject = _percent_encoded(key)
        else:  # `isprintable` says the same of nearly all keys, in a seventh of the time
            subject = value if value.isprintable() or not _DISALLOWED.search(value) else _percent_encoded(key)
        time = _timestamp(observed_ms if deadline_ms is None else deadline_ms) or _timestamp(observed_ms)
        attributes: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": expiration.id,
            "source": self._source,
            "type": EXPIRED_TYPE,
            "subject": subject,
            "time": time,
        }
        if not subject:
            del attributes["subject"]
        if time is None:
            del attributes["time"]
        data = {
            "db": self._db,
            name: value,
            "deadline_ms": deadline_ms,
            "observed_ms": observed_ms,
            "via": expiration.via.value,
        }
        return self._message(expiration, attributes, data)

    def _gap(self, record: GapRecord) -> Message:
        attributes: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": record.id,
            "source": self._source,
            "type": GAP_TYPE,
            "subject": record.node,
            "time": _timestamp(record.closed_ms) or _timestamp(MAX_TIME_MS),
        }
        data = {
            "node": record.node,
            "opened_ms": record.opened_ms,
            "closed_ms": record.closed_ms,
            "cause": record.cause,
            "missed": record.missed,
            "recovered": record.recovered,
            "ambiguous": record.ambiguous,
        }
        return self._message(record, attributes, data, gap=True)

    def _message(self, event: Event, attributes: dict[str, Any], data: dict[str, Any], *, gap: bool = False) -> Message:
        if self._binary:
            return Message(event.id, event.key, orjson.dumps(data), DATA_CONTENT_TYPE, attributes, gap)
        attributes["datacontenttype"] = DATA_CONTENT_TYPE
        attributes["data"] = data
        return Message(event.id, event.key, orjson.dumps(attributes), STRUCTURED_CONTENT_TYPE, gap=gap)


def _percent_encoded(key: bytes) -> str:
    return quote_from_bytes(key, safe=_PRINTABLE)


def _timestamp(unix_ms: int) -> str | None:
    """RFC 3339, UTC, with milliseconds; None for what RFC 3339 cannot express."""
    if not 0 <= unix_ms <= MAX_TIME_MS:
        return None
    second, ms = divmod(unix_ms, 1000)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(maxsize=1024)  # events come in the order of their time: the same second again and again
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
