"""`BRIDGE_KEYS` matches what Redis itself matches."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from bridge.redis.protocol.patterns import matcher, scan_match
from tests.servers import RedisServer, require

GLOB = st.text(alphabet="ab*?[]^-\\\n:", max_size=8)
KEY = st.text(alphabet="ab*?[]^-\\\n:", max_size=6)


def matches(pattern: str, key: bytes) -> bool:
    match = matcher([pattern])
    return match is None or bool(match(key))


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("*", b"", True),
        ("share:*", b"share:", True),
        ("share:*", b"xshare:1", False),
        ("a?c", b"a\nc", True),
        ("a?c", b"ac", False),
        ("[a-c]x", b"bx", True),
        ("[c-a]x", b"bx", True),
        ("[^a]x", b"ax", False),
        ("[^a]x", b"\xffx", True),
        (r"a\*", b"a*", True),
        (r"a\*", b"ab", False),
        ("a.c", b"abc", False),
        ("", b"", True),
    ],
)
def test_a_pattern_matches_as_in_redis(pattern: str, key: bytes, expected: bool) -> None:  # noqa: FBT001
    assert matches(pattern, key) is expected


def test_any_of_several_patterns_is_enough() -> None:
    match = matcher(["share:*", "session:?"])

    assert match is not None
    assert [bool(match(key)) for key in (b"share:1", b"session:2", b"session:22")] == [True, True, False]


def test_a_star_among_the_patterns_matches_everything() -> None:
    assert matcher(["share:*", "*"]) is None


def test_redis_itself_filters_a_scan_only_where_one_pattern_says_all() -> None:
    assert scan_match(["share:*"]) == (b"share:*", True)
    assert scan_match(["*"]) == scan_match(["share:*", "*"]) == (b"*", True)
    assert scan_match(["a*", "b*"]) == (b"*", False)
    assert scan_match(["share:*"], shards=2) == (b"share:*", False)
    assert scan_match(["*"], shards=2) == (b"*", False)


def test_matching_agrees_with_a_real_server() -> None:
    require(RedisServer)
    with RedisServer() as server, Redis(port=server.port) as client:

        @settings(max_examples=500, deadline=None)
        @example("**", "")
        @example("[", "[")
        @example("[^", "a")
        @example("a[", "a")
        @example("[a-", "-")
        @example("[]", "]")
        @example("[\\", "\\")
        @example("\\", "\\")
        @given(GLOB, KEY)
        def agree(pattern: str, key: str) -> None:
            client.flushdb()
            client.set(key, "")
            assert matches(pattern, key.encode()) == bool(client.keys(pattern)), (pattern, key)

        agree()
