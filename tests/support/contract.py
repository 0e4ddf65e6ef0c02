"""The outside contract: the keys in Redis, ids and messages, computed a second time from their description.

Nothing here is the service's code: what it publishes is compared with this.
"""

import json
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote_to_bytes

from nats.aio.msg import Msg

STREAM = "EXPIRY"
LEDGER, OUTBOX, LEASE, DEAD = (f"{{expiry-bridge:0:0}}:{name}" for name in ("deadlines", "outbox", "lease", "dead"))
VALUES = "{expiry-bridge:0:0}:values"
CANARY = b"{expiry-bridge:0:0}:canary"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Arrived:
    """An expiration in the stream, of either content mode."""

    subject: str
    headers: Mapping[str, str]
    event: Mapping[str, Any]
    """The CloudEvent, as structured mode writes it."""
    key: bytes
    deadline_ms: int | None

    @classmethod
    def of(cls, message: Msg) -> "Arrived | None":
        """None for what is no expiration."""
        headers, body = dict(message.headers or {}), json.loads(message.data)
        event: dict[str, Any]
        if headers["content-type"] == "application/json":
            marked = {name: value for name, value in headers.items() if name.startswith("ce-")}
            event = {name[3:]: unquote_to_bytes(value).decode() for name, value in marked.items()}
            event |= {"datacontenttype": headers["content-type"], "data": body}
        else:
            assert headers["content-type"] == "application/cloudevents+json"
            event = body
        if event["type"] != "redis.key.expired":
            return None
        data = event["data"]
        key = data["key"].encode() if "key" in data else b64decode(data["key_base64"], validate=True)
        return cls(message.subject, headers, event, key, data["deadline_ms"])

    def keeps_the_contract(self, *, db: int = 0, source: str = "/redis", subject: str | None = None) -> None:
        """Fail unless all of the message is as promised; of an unknown deadline's id only the form can be checked."""
        data, deadline_ms = self.event["data"], self.deadline_ms
        observed_ms, moment_ms = data["observed_ms"], data["observed_ms"] if deadline_ms is None else deadline_ms
        id_ = self.event["id"] if deadline_ms is None else id_of_deadline(self.key, deadline_ms, db, source)
        assert len(id_) == 32
        assert bytes.fromhex(id_)
        assert deadline_ms is None or observed_ms > deadline_ms
        assert data["via"] in {"notification", "sweep"}
        assert self.event == {
            "specversion": "1.0",
            "id": id_,
            "source": source,
            "type": "redis.key.expired",
            **event_subject(self.key),
            "time": (EPOCH + timedelta(milliseconds=moment_ms)).strftime("%Y-%m-%dT%H:%M:%S.")
            + f"{moment_ms % 1000:03}Z",
            "datacontenttype": "application/json",
            "data": {
                "db": db,
                **data_key(self.key),
                "deadline_ms": deadline_ms,
                "observed_ms": observed_ms,
                "via": data["via"],
            },
        }
        assert self.headers["Nats-Msg-Id"] == id_
        assert self.subject == (subject or f"expired.{db}.{token(self.key.partition(b':')[0])}")


def id_of_deadline(key: bytes, deadline_ms: int, db: int = 0, source: str = "/redis") -> str:
    """The id of an expiration whose deadline is known."""
    return _digest(source.encode(), b"%d" % db, key, b"d", b"%d" % deadline_ms)


def id_of_entry(key: bytes, entry: bytes, index: int, db: int = 0, source: str = "/redis") -> str:
    """The id of an expiration whose deadline is unknown: it is by its place in the outbox."""
    return _digest(source.encode(), b"%d" % db, key, b"u", entry, b"%d" % index)


def _digest(*parts: bytes) -> str:
    lengthy = [str(len(part)).encode() + b":" + part + b"," for part in parts]
    return blake2b(b"".join(lengthy), digest_size=16).hexdigest()


def event_subject(key: bytes) -> dict[str, str]:
    """The attribute `subject`: none for the empty key, percent-encoded where a CloudEvents string cannot be the key."""
    text = _text(key)
    if text is None or any(unicodedata.category(char) == "Cc" or _is_non_character(ord(char)) for char in text):
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in key)
    return {"subject": text} if text else {}


def data_key(key: bytes) -> dict[str, str]:
    """The key in `data`."""
    text = _text(key)
    return {"key_base64": b64encode(key).decode()} if text is None else {"key": text}


def token(part: bytes) -> str:
    """A part of a key as a token of a NATS subject."""
    encoded = "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b"%.*>" else f"%{byte:02X}" for byte in part)
    return "%5F" + encoded[1:] if encoded.startswith("_") else encoded or "_"


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _is_non_character(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
