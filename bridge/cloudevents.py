"""An expiration as a CloudEvents 1.0 message: the one place that knows the message contract's field names.

Guaranteed: any key, and any deadline that Redis can hold, encodes, and the result is valid CloudEvents. Where a key or
a deadline cannot be what CloudEvents asks for, the `data` still says it exactly:

* `data.key` is the key, where it is UTF-8; else `data.key_base64` (RFC 4648, with padding).
* `data.field`, or `data.field_base64`, likewise, where a field of a hash expired; the rest is that of the hash's key.
* `subject` is the key, where a CloudEvents string may hold it. Else (no UTF-8, or a control character or
  non-character in it) it is percent-encoded: `%` and every byte outside printable ASCII become `%XX`. An empty key has
  no `subject`, because CloudEvents does not allow an empty one.
* `time` is the deadline, or the time of observation where the deadline is unknown or past the year 9999, which
  RFC 3339 cannot express. `data.deadline_ms` is the true one, up to 2^63 - 1.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import quote_from_bytes

import orjson

from bridge.contracts import Message
from bridge.expiration import CHECK_KEY, Event, Expiration, FieldExpiration, GapRecord
from bridge.value_json import value_members

SPEC_VERSION = "1.0"
EXPIRED_TYPE = "redis.key.expired"
FIELD_TYPE = "redis.hash.field.expired"
GAP_TYPE = "redis.expiry.gap"
CHECK_TYPE = "redis.expiry.check"
"""Of the message that `expiry-bridge check --publish` sends: nothing has happened, and consumers have nothing to do."""
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
    """Encodes the events of one source and database. About two microseconds each; no state but caches.

    The JSON is put together from its parts, in the order of the contract: building a dictionary for each event, to have
    it serialized, takes twice as long.
    """

    def __init__(
        self,
        source: str,
        db: int,
        mode: Literal["structured", "binary"],
        traceparent: Callable[[str], str] | None = None,
    ) -> None:
        """`source` is the CloudEvents source; `mode` the content mode; `traceparent` makes the one of an id."""
        self._source = source
        self._source_json = _json(source)
        self._db = db
        self._binary = mode == "binary"
        self._moment: tuple[int | None, int, str] | None = None
        """Deadline, time of observation and way of the last expiration: they often come in runs of one moment."""
        self._time: str | None = None
        self._moment_json = ""
        """What is the same in all messages of that moment."""
        self._traceparent = traceparent

    def encode(self, event: Event) -> Message:
        """The message of one event. Equal events give equal messages. Never raises."""
        if isinstance(event, Expiration):
            return self._expiration(event)
        return self._field(event) if isinstance(event, FieldExpiration) else self._gap(event)

    def trial(self, id_: str, published_ms: int) -> Message:
        """A message that says nothing but that it was published at this time, in Unix milliseconds. See CHECK_TYPE."""
        data = f'{{"db":{self._db},"published_ms":{published_ms}}}'
        message = self._message(id_, CHECK_KEY, CHECK_TYPE, CHECK_KEY.decode(), _timestamp(published_ms), data)
        return message._replace(gap=True)

    def _expiration(self, expiration: Expiration) -> Message:
        id_, key, deadline_ms, observed_ms, via, held = expiration
        try:
            name, value = "key", key.decode()
        except UnicodeDecodeError:
            name, value = "key_base64", b64encode(key).decode()
            subject = _percent_encoded(key)
        else:  # `isprintable` says the same of nearly all keys, in a seventh of the time
            subject = value if value.isprintable() or not _DISALLOWED.search(value) else _percent_encoded(key)
        value_json = _json(value)
        if (moment := (deadline_ms, observed_ms, via)) != self._moment:
            self._begin_run(*moment)
        data = f'{{"db":{self._db},"{name}":{value_json}{self._moment_json}'
        if held is not None:
            data = f"{data[:-1]}{value_members(held)}}}"
        subject_json, trace = value_json if subject is value else None, self._trace(id_)
        return self._message(id_, key, EXPIRED_TYPE, subject, self._time, data, subject_json, trace)

    def _begin_run(self, deadline_ms: int | None, observed_ms: int, via: str) -> None:
        """The next expirations are of that moment."""
        self._moment = deadline_ms, observed_ms, via
        self._time = _timestamp(observed_ms if deadline_ms is None else deadline_ms) or _timestamp(observed_ms)
        deadline = "null" if deadline_ms is None else deadline_ms
        self._moment_json = f',"deadline_ms":{deadline},"observed_ms":{observed_ms},"via":"{via}"}}'

    def _field(self, expiration: FieldExpiration) -> Message:
        id_, key, field, deadline_ms, observed_ms, via = expiration
        data = {"db": self._db, **_text_or_base64("key", key), **_text_or_base64("field", field)}
        data |= {"deadline_ms": deadline_ms, "observed_ms": observed_ms, "via": via}
        time = _timestamp(deadline_ms) or _timestamp(observed_ms)
        text, trace = orjson.dumps(data).decode(), self._trace(id_)
        message = self._message(id_, key, FIELD_TYPE, _subject(key), time, text, trace=trace)
        return message._replace(field_lane=b"%d:%b%b" % (len(key), key, field))

    def _trace(self, id_: str) -> str | None:
        return None if self._traceparent is None else self._traceparent(id_)

    def _gap(self, record: GapRecord) -> Message:
        data = {
            "node": record.node,
            "opened_ms": record.opened_ms,
            "closed_ms": record.closed_ms,
            "cause": record.cause,
            "missed": record.missed,
            "recovered": record.recovered,
            "ambiguous": record.ambiguous,
        }
        if record.filled is not None:
            data |= {"filled": record.filled, "excess": record.excess}
        time = _timestamp(record.closed_ms) or _timestamp(MAX_TIME_MS)
        message = self._message(record.id, record.key, GAP_TYPE, record.node, time, orjson.dumps(data).decode())
        return message._replace(gap=True)

    def _message(
        self,
        id_: str,
        key: bytes,
        type_: str,
        subject: str,
        time: str | None,
        data: str,
        subject_json: str | None = None,
        trace: str | None = None,
    ) -> Message:
        """`subject_json`: the subject in JSON, where that is known. `trace`: of the distributed tracing extension."""
        if self._binary:
            attributes = {"specversion": SPEC_VERSION, "id": id_, "source": self._source, "type": type_}
            if subject:
                attributes["subject"] = subject
            if time is not None:
                attributes["time"] = time
            if trace is not None:
                attributes["traceparent"] = trace
            return Message(id_, key, data.encode(), DATA_CONTENT_TYPE, attributes)
        of = f'"subject":{subject_json or _json(subject)},' if subject else ""
        at = "" if time is None else f'"time":"{time}",'
        traced = "" if trace is None else f'"traceparent":"{trace}",'
        body = (
            f'{{"specversion":"{SPEC_VERSION}","id":"{id_}","source":{self._source_json},"type":"{type_}",{of}{at}{traced}'
            f'"datacontenttype":"{DATA_CONTENT_TYPE}","data":{data}}}'
        )
        return Message(id_, key, body.encode(), STRUCTURED_CONTENT_TYPE)


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _text_or_base64(name: str, value: bytes) -> dict[str, object]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}


def _subject(key: bytes) -> str:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return _percent_encoded(key)
    return _percent_encoded(key) if _DISALLOWED.search(text) else text


def _percent_encoded(key: bytes) -> str:
    return quote_from_bytes(key, safe=_PRINTABLE)


def _timestamp(unix_ms: int) -> str | None:
    """RFC 3339, UTC, with milliseconds; None for what RFC 3339 cannot express."""
    if not 0 <= unix_ms <= MAX_TIME_MS:
        return None
    digits = f"{unix_ms:04d}"
    return f"{_second(digits[:-3])}.{digits[-3:]}Z"


@lru_cache(maxsize=1024)  # events come in the order of their time: the same second again and again
def _second(unix_s: str) -> str:
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%S")
