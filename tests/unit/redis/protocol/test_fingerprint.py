"""The fingerprint of a bridge's settings: what is kept of them, and which differences are named."""

import pytest

from bridge.redis.protocol.fingerprint import differences, packed, unpacked

HERE = {"BRIDGE_KEYS": "share:*", "BRIDGE_SINK": "jetstream"}


def test_what_is_kept_is_read_again() -> None:
    assert unpacked(packed(HERE)) == HERE
    assert differences(unpacked(packed(HERE)), HERE) == []


def test_a_difference_is_named_with_both_values() -> None:
    assert differences({**HERE, "BRIDGE_KEYS": "*"}, HERE) == ["BRIDGE_KEYS is '*' there, and 'share:*' here"]


def test_an_unset_setting_is_called_so() -> None:
    assert differences({"BRIDGE_VALUES": "None"}, {"BRIDGE_VALUES": "*"}) == [
        "BRIDGE_VALUES is unset there, and '*' here"
    ]


def test_what_only_one_version_knows_of_is_no_difference() -> None:
    assert differences({"BRIDGE_SINK": "jetstream", "BRIDGE_LATER": "1"}, HERE) == []


def test_a_long_value_is_kept_short_and_compared_all_the_same() -> None:
    long, other = {"BRIDGE_KEYS": "a" * 10_000}, {"BRIDGE_KEYS": "a" * 9_999 + "b"}
    assert len(packed(long)) < 200
    assert differences(unpacked(packed(long)), long) == []
    assert len(differences(unpacked(packed(long)), other)) == 1


@pytest.mark.parametrize("text", [b"", b"no JSON", b"[1]", b'{"BRIDGE_KEYS": 1}', b"\xff"])
def test_what_no_bridge_has_written_says_nothing(text: bytes) -> None:
    assert unpacked(text) == {}
