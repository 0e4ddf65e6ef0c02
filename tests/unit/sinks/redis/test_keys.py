"""The keys of streams, and what is beside them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contracts import Message
from bridge.redis.protocol.patterns import matches
from bridge.redis.protocol.slots import slot_of
from bridge.settings import Settings
from bridge.sinks.redis.keys import MOST, StreamTemplate, encode_prefix, memory_of

NASTY = st.one_of(st.binary(), st.text(alphabet="_%:.{}xy", max_size=9).map(str.encode))


def template(stream: str) -> StreamTemplate:
    return StreamTemplate(Settings.model_validate({"sink_redis_stream": stream}), 3)


@pytest.mark.parametrize(
    ("stream", "key", "name"),
    [
        ("expired", b"share:1", b"expired"),
        ("expired:{db}", b"share:1", b"expired:3"),
        ("{db}/{prefix}", b"share:1", b"3/share"),
        ("gone:{prefix}", b"a{b}:1", b"gone:a%7Bb%7D"),
        ("gone:{prefix}", b"_gap:1", b"gone:%5Fgap"),
        ("gone:{prefix}", b":1", b"gone:_"),
    ],
)
def test_the_template_is_filled_with_db_and_prefix(stream: str, key: bytes, name: bytes) -> None:
    assert template(stream).of(key) == name


@given(NASTY, NASTY)
@example(b"x" * 300, b"x" * 299)
@example(b"", b"_")
def test_no_two_prefixes_share_a_stream(one: bytes, other: bytes) -> None:
    left, right = encode_prefix(one), encode_prefix(other)
    assert (left == right) == (one == other)
    assert left not in {"_gap", "_check"}
    assert 0 < len(left) <= MOST
    assert not set(left) & set("{}")


@given(NASTY)
def test_a_stream_and_its_memory_are_in_one_slot(key: bytes) -> None:
    for stream in ("expired", "gone:{prefix}"):
        name = template(stream).of(key)
        assert slot_of(name) == slot_of(memory_of(name))


def test_gap_records_and_test_messages_have_streams_of_their_own_where_keys_have() -> None:
    gap = Message("1", b"_gap", b"", "", gap=True)
    check = gap._replace(key=b"_check")
    assert [template("expired").of_message(message) for message in (gap, check)] == [b"expired"] * 2
    assert template("x:{prefix}").of_message(gap) == b"x:_gap"
    assert template("x:{prefix}").of_message(check) == b"x:_check"
    assert template("x:{prefix}").without_key(gap) == "x:_gap"
    assert template("x:{prefix}").without_key(gap._replace(key=b"share:1", gap=False)) == "x:{prefix}"


@pytest.mark.parametrize(
    ("settings", "bridged"),
    [
        ({"sink": "redis"}, False),
        ({"sink": "redis", "sink_redis_url": "redis://u:p@127.0.0.1:6379/0"}, False),
        ({"sink": "redis", "sink_redis_url": "redis://127.0.0.1:6379/1"}, True),
        ({"sink": "redis", "sink_redis_url": "redis://other"}, True),
        ({"sink": "jetstream"}, True),
    ],
)
@pytest.mark.parametrize("stream", ["gone:{db}", "gone:{prefix}"])
def test_a_stream_beside_the_keys_is_no_users_key(settings: dict[str, str], stream: str, *, bridged: bool) -> None:
    made = Settings.model_validate({**settings, "sink_redis_stream": stream})
    name = StreamTemplate(made, 0).of(b"share:1")
    for key in (name, memory_of(name)):
        assert matches(made.bridged_keys(), key) is bridged
    assert matches(made.bridged_keys(), b"share:1")
