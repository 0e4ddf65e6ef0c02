"""The message contract, as the CloudEvents SDK and a consumer see it."""

import json
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.cloudevents import MAX_TIME_MS, Encoder
from bridge.contracts import Message
from bridge.expiration import Expiration, FieldExpiration, Via
from bridge.sinks.jetstream.headers import MESSAGE_ID, headers_of, size

Mode = Literal["structured", "binary"]
MODES = st.sampled_from(["structured", "binary"])
KEYS = st.one_of(st.binary(), st.text().map(str.encode))
DEADLINES = st.one_of(st.none(), st.integers(min_value=0, max_value=2**63 - 1), st.integers(0, MAX_TIME_MS))
ID = "9f0c1d2e" * 4


def encoded(key: bytes, mode: Mode, deadline_ms: int | None = 1_795_346_562_164, source: str = "/redis") -> Message:
    return Encoder(source, 0, mode).encode(Expiration(ID, key, deadline_ms, 1_795_346_562_166, Via.NOTIFICATION))


def parsed(message: Message) -> BaseCloudEvent:
    """By the SDK, which validates it. The NATS binding has the headers of the HTTP binding."""
    return from_http_event(HTTPMessage(headers_of(message), message.body))


def key_of(data: dict[str, Any]) -> bytes:
    """The key, as a consumer reads it."""
    assert ("key" in data) != ("key_base64" in data)
    return data["key"].encode() if "key" in data else b64decode(data["key_base64"], validate=True)


def test_a_structured_message_is_what_the_contract_says() -> None:
    message = encoded(b"share:7f3a", "structured")
    assert message.content_type == "application/cloudevents+json"
    assert message.attributes == {}
    assert (message.id, message.key) == (ID, b"share:7f3a")
    assert json.loads(message.body) == {
        "specversion": "1.0",
        "id": ID,
        "source": "/redis",
        "type": "redis.key.expired",
        "subject": "share:7f3a",
        "time": "2026-11-22T11:22:42.164Z",
        "datacontenttype": "application/json",
        "data": {
            "db": 0,
            "key": "share:7f3a",
            "deadline_ms": 1_795_346_562_164,
            "observed_ms": 1_795_346_562_166,
            "via": "notification",
        },
    }


def test_a_binary_message_has_the_attributes_in_headers_and_the_data_as_body() -> None:
    message = encoded(b"share:7f3a", "binary")
    assert headers_of(message) == {
        "Nats-Msg-Id": ID,
        "content-type": "application/json",
        "ce-datacontenttype": "application/json",
        "ce-specversion": "1.0",
        "ce-id": ID,
        "ce-source": "/redis",
        "ce-type": "redis.key.expired",
        "ce-subject": "share:7f3a",
        "ce-time": "2026-11-22T11:22:42.164Z",
    }
    assert json.loads(message.body) == json.loads(encoded(b"share:7f3a", "structured").body)["data"]


@pytest.mark.parametrize(
    ("key", "field", "subject", "names"),
    [
        (b"share:7f3a", b"alice", "share:7f3a", {"key": "share:7f3a", "field": "alice"}),
        (b"h", b"\xff", "h", {"key": "h", "field_base64": "/w=="}),
        (b"\xff\n", b"", "%FF%0A", {"key_base64": "/wo=", "field": ""}),
        (b"a\nb", b"a\nb", "a%0Ab", {"key": "a\nb", "field": "a\nb"}),
        (b"", b"f", None, {"key": "", "field": "f"}),
    ],
)
def test_a_field_is_told_with_its_hash(key: bytes, field: bytes, subject: str | None, names: dict[str, str]) -> None:
    expiration = FieldExpiration(ID, key, field, 1_795_346_562_164, 1_795_346_562_166, Via.NOTIFICATION)
    times = {"deadline_ms": 1_795_346_562_164, "observed_ms": 1_795_346_562_166, "via": "notification"}

    message = Encoder("/redis", 0, "structured").encode(expiration)
    event = json.loads(message.body)
    assert (message.id, message.key) == (ID, key)
    assert (event["type"], event.get("subject")) == ("redis.hash.field.expired", subject)
    assert event["time"] == "2026-11-22T11:22:42.164Z"
    assert event["data"] == {"db": 0, **names, **times}
    assert json.loads(Encoder("/redis", 0, "binary").encode(expiration).body) == event["data"]


def test_an_unknown_deadline_is_null_and_the_time_is_that_of_the_observation() -> None:
    event = json.loads(encoded(b"k", "structured", deadline_ms=None).body)
    assert event["data"]["deadline_ms"] is None
    assert event["time"] == "2026-11-22T11:22:42.166Z"


@pytest.mark.parametrize(
    ("deadline_ms", "time"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (MAX_TIME_MS, "9999-12-31T23:59:59.999Z"),
        (MAX_TIME_MS + 1, "2026-11-22T11:22:42.166Z"),
        (2**63 - 1, "2026-11-22T11:22:42.166Z"),
    ],
)
def test_an_absurd_deadline_is_kept_in_the_data(deadline_ms: int, time: str) -> None:
    event = json.loads(encoded(b"k", "structured", deadline_ms).body)
    assert event["data"]["deadline_ms"] == deadline_ms
    assert event["time"] == time


def test_without_any_time_that_can_be_expressed_there_is_none() -> None:
    expiration = Expiration(ID, b"k", None, MAX_TIME_MS + 1, Via.SWEEP)
    assert "time" not in json.loads(Encoder("/redis", 0, "structured").encode(expiration).body)


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        (b"", None),
        ("größe:ü".encode(), "größe:ü"),
        (b"50%25", "50%25"),
        (b"a b", "a b"),
        (b"\xff\x00%a\xc3\xa4", "%FF%00%25a%C3%A4"),
        (b"line\nfeed", "line%0Afeed"),
        (b"\x7f", "%7F"),
        ("c1\x85".encode(), "c1%C2%85"),
        ("\ufdd0\U0001ffff".encode(), "%EF%B7%90%F0%9F%BF%BF"),
        (b"\xed\xa0\x80", "%ED%A0%80"),  # half a surrogate pair is not UTF-8
        ("\u00ad\u2028".encode(), "\u00ad\u2028"),  # not printable, but allowed
    ],
)
def test_the_subject_is_the_key_where_cloudevents_allows_it_else_percent_encoded(key: bytes, subject: str) -> None:
    assert json.loads(encoded(key, "structured").body).get("subject") == subject
    assert encoded(key, "binary").attributes.get("subject") == subject


@given(key=KEYS, deadline_ms=DEADLINES, mode=MODES)
@example(key=b"", deadline_ms=2**63 - 1, mode="binary")
def test_any_key_and_deadline_reach_the_consumer_unharmed(key: bytes, deadline_ms: int | None, mode: Mode) -> None:
    event = parsed(encoded(key, mode, deadline_ms))
    data = event.get_data()
    assert isinstance(data, dict)
    assert key_of(data) == key
    assert data["deadline_ms"] == deadline_ms
    assert event.get_id() == ID
    subject = event.get_subject()
    assert bool(subject) == bool(key)
    if subject and subject.encode("utf-8", "surrogatepass") != key:
        assert unquote_to_bytes(subject) == key
    time_ms = deadline_ms if deadline_ms is not None and deadline_ms <= MAX_TIME_MS else data["observed_ms"]
    assert event.get_time() == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)


MOMENTS = st.tuples(st.sampled_from([None, 0, 1_795_346_562_164]), st.sampled_from([0, 1]), st.sampled_from(Via))


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"\xff"]), MOMENTS), max_size=10), MODES)
def test_what_was_encoded_before_makes_no_difference(expirations: list[tuple[bytes, Any]], mode: Mode) -> None:
    encoder = Encoder("/redis", 0, mode)
    for key, moment in expirations:
        expiration = Expiration(ID, key, *moment)
        assert encoder.encode(expiration) == Encoder("/redis", 0, mode).encode(expiration)


@given(key=KEYS)
def test_both_modes_say_the_same(key: bytes) -> None:
    structured, binary = parsed(encoded(key, "structured")), parsed(encoded(key, "binary"))
    assert structured.get_data() == binary.get_data()
    assert structured.get_attributes().items() >= binary.get_attributes().items()


@given(key=KEYS, source=st.text(min_size=1).filter(str.strip), mode=MODES)
def test_no_header_can_end_its_line_and_the_size_is_exact(key: bytes, source: str, mode: Mode) -> None:
    headers = headers_of(encoded(key, mode, source=source))
    assert all(re.fullmatch(r"[!#-~]+", value) for value in headers.values())
    wire = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    assert size(headers) == len(wire.encode())
    assert headers[MESSAGE_ID] == ID


def test_a_trace_is_named_as_the_distributed_tracing_extension_says() -> None:
    expiration = Expiration(ID, b"share:1", 1_795_346_562_164, 1_795_346_562_166, Via.NOTIFICATION)
    traced = Encoder("/redis", 0, "structured", "00-{}-1-01".format).encode(expiration)
    event = json.loads(traced.body)
    assert event.pop("traceparent") == f"00-{ID}-1-01"
    assert event == json.loads(Encoder("/redis", 0, "structured").encode(expiration).body)
    binary = Encoder("/redis", 0, "binary", "00-{}-1-01".format).encode(expiration)
    assert binary.attributes["traceparent"] == f"00-{ID}-1-01"
    assert "traceparent" not in Encoder("/redis", 0, "binary").encode(expiration).attributes
