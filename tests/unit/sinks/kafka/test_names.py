"""Keys as Kafka topics."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.sinks.kafka.names import TopicTemplate, encode_prefix

VALID = re.compile(r"[A-Za-z0-9._-]{1,249}")
NASTY = st.one_of(st.binary(), st.binary(max_size=3), st.text(alphabet="_-.%a2E{}dbprefix", max_size=9).map(str.encode))
LONG = st.builds(lambda head, tail: head * 200 + tail, st.sampled_from([b"a", b"_", b"\xff"]), st.binary(max_size=3))
ROOM = 64


@pytest.mark.parametrize(
    ("prefix", "encoded"),
    [
        (b"", "_"),
        (b"share", "share"),
        (b"Share-2", "Share-2"),
        (b"_", "_5F"),
        (b"_gap", "_5Fgap"),
        (b"a.b_c", "a_2Eb_5Fc"),
        (b"..", "_2E_2E"),
        ("ü".encode(), "_C3_BC"),
        (b"\x00\xff", "_00_FF"),
        (b"x" * ROOM, "x" * ROOM),
        (b"x" * (ROOM + 1), "x" * 30 + "_-e7d347aafb04b4783db0f88621284c94"),
    ],
)
def test_a_prefix_is_itself_with_what_kafka_forbids_or_confuses_in_hex(prefix: bytes, encoded: str) -> None:
    assert encode_prefix(prefix, ROOM) == encoded


@settings(deadline=None)  # the machine may be busy
@given(NASTY | LONG, NASTY | LONG)
@example(b"", b"_")
@example(b"x" * 65, b"x" * 66)
@example(b"_2E", b".")
def test_no_two_prefixes_share_a_name_not_even_where_kafka_confuses_dots(one: bytes, other: bytes) -> None:
    names = [encode_prefix(prefix, ROOM) for prefix in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert not any("." in name for name in names)
    assert "_gap" not in names


@settings(deadline=None)  # the machine may be busy
@given(NASTY | LONG, st.sampled_from(["a.{prefix}", "{db}.{prefix}", "x{prefix}y{prefix}", "a" * 185 + "{prefix}"]))
def test_any_key_has_a_valid_topic(key: bytes, template: str) -> None:
    assert VALID.fullmatch(TopicTemplate(template, 3).of(key))


@pytest.mark.parametrize(
    ("template", "key", "topic", "fixed"),
    [
        ("redis.expired", b"share:1", "redis.expired", "redis.expired"),
        ("redis.{db}.expired", b"share:1", "redis.3.expired", "redis.3.expired"),
        ("redis.{prefix}", b"share:1:2", "redis.share", None),
        ("redis.{prefix}", b"share", "redis.share", None),
        ("redis.{prefix}", b":share", "redis._", None),
        ("{db}-{prefix}-{prefix}", b"{db}:1", "3-_7Bdb_7D-_7Bdb_7D", None),
    ],
)
def test_the_template_is_filled_with_db_and_prefix(template: str, key: bytes, topic: str, fixed: str | None) -> None:
    names = TopicTemplate(template, 3)
    assert names.of(key) == topic
    assert names.of(key) == topic  # from the cache
    assert names.fixed == fixed


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{prefix}", "must begin with something fixed"),
        ("{prefix}.expired", "must begin with something fixed"),
        ("x" * 249 + "{db}", "too long"),
        ("x" * 186 + "{prefix}", "too long"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"BRIDGE_KAFKA_TOPIC: {problem}"):
        TopicTemplate(template, 0)
