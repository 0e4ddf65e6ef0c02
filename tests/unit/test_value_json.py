"""What a message says of a key's value."""

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cloudevents import Encoder
from bridge.expiration import MISSING, NOT_CAPTURED, Expiration, Value, Via

ID = "0" * 32
STRINGS = st.binary(max_size=20)
PAIRS = st.lists(st.tuples(STRINGS, STRINGS), max_size=5, unique_by=lambda pair: pair[0])


def data_of(value: Value | None) -> dict[str, Any]:
    """The `data` of its message, which is the same in both modes."""
    expiration = Expiration(ID, b"k", 1, 2, Via.NOTIFICATION, value)
    data: dict[str, Any] = json.loads(Encoder("/redis", 0, "binary").encode(expiration).body)
    assert json.loads(Encoder("/redis", 0, "structured").encode(expiration).body)["data"] == data
    return data


def of(kind: str, content: bytes | list[bytes]) -> Value:
    return Value(kind, 1, exact=True, content=content)


def test_a_message_without_a_value_is_as_it_was_before_there_were_any() -> None:
    body = Encoder("/redis", 0, "binary").encode(Expiration(ID, b"k", 1, 2, Via.SWEEP)).body
    assert body == b'{"db":0,"key":"k","deadline_ms":1,"observed_ms":2,"via":"sweep"}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (of("string", b"text"), {"value_type": "string", "value": "text"}),
        (of("string", b"\xff"), {"value_type": "string", "value_base64": "/w=="}),
        (of("string", b""), {"value_type": "string", "value": ""}),
        (of("hash", [b"f", b"v"]), {"value_type": "hash", "value": {"f": "v"}}),
        (of("hash", [b"f", b"\xff"]), {"value_type": "hash", "value_base64": {"Zg==": "/w=="}}),
        (of("list", [b"a", b"a"]), {"value_type": "list", "value": ["a", "a"]}),
        (of("set", [b"a"]), {"value_type": "set", "value": ["a"]}),
        (of("zset", [b"m", b"1e+30"]), {"value_type": "zset", "value": [["m", 1e30]]}),
        (of("zset", [b"m", b"inf", b"n", b"-inf"]), {"value_type": "zset", "value": [["m", "inf"], ["n", "-inf"]]}),
        (of("zset", [b"\xff", b"3"]), {"value_type": "zset", "value_base64": [["/w==", 3.0]]}),
        (of("ReJSON-RL", b'{"a":[1,null]}'), {"value_type": "json", "value": {"a": [1, None]}}),
        (of("ReJSON-RL", b'{"a":'), {"value_type": "json", "value_base64": "eyJhIjo="}),
    ],
)
def test_each_type_has_its_shape(value: Value, said: dict[str, object]) -> None:
    plain = data_of(None)
    assert data_of(value) == plain | {"captured_ms": 1, "value_exact": True} | said


def test_a_large_number_in_a_document_stays_what_it_is() -> None:
    value = of("ReJSON-RL", b'{"a":123456789012345678901234567890}')
    assert data_of(value)["value"]["a"] == 123456789012345678901234567890


@pytest.mark.parametrize("reason", MISSING)
def test_a_value_that_is_missing_is_null_and_has_its_reason(reason: str) -> None:
    data = data_of(Value("string", missing=reason, size=70_000))
    assert (data["value"], data["value_missing"]) == (None, reason)
    assert data.get("value_bytes") == (70_000 if reason == "too_large" else None)
    assert "value_exact" not in data


def test_of_what_was_not_captured_no_type_is_known() -> None:
    assert "value_type" not in data_of(Value(missing=NOT_CAPTURED))


@given(PAIRS)
def test_any_bytes_are_said_exactly(pairs: list[tuple[bytes, bytes]]) -> None:
    data = data_of(of("hash", [word for pair in pairs for word in pair]))
    if "value" in data:
        assert {field.encode(): value.encode() for field, value in data["value"].items()} == dict(pairs)
    else:
        assert {b64decode(field): b64decode(value) for field, value in data["value_base64"].items()} == dict(pairs)
