"""`BRIDGE_KEYS` matches what Redis itself matches."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from bridge.redis.protocol.patterns import matcher, matches, scan_match
from tests.support.servers import RedisServer

GLOB = st.one_of(
    st.text(alphabet="ab*?[]^-\\\n:", max_size=8),
    # Whether binding each star to the first place is as good as trying all.
    st.lists(st.sampled_from(["a", "b", "ab", "?", "[ab]", "[^a]", "*", "*", "*"]), max_size=9).map("".join),
)
KEY = st.one_of(st.text(alphabet="ab*?[]^-\\\n:", max_size=6), st.text(alphabet="ab", max_size=12))


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
    assert matches([pattern], key) is expected


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


def test_what_an_excluding_pattern_matches_is_left_out_whatever_the_others_say() -> None:
    patterns = ["share:*", "!share:tmp:*", "session:?", "!*:x"]

    keys = (b"share:1", b"share:tmp:1", b"session:2", b"session:x", b"other")
    assert [matches(patterns, key) for key in keys] == [True, False, True, False, False]
    assert [matches(["*", "!tmp:*"], key) for key in (b"", b"tmp:", b"a\n")] == [True, False, True]
    assert not matches(["*", "!*"], b"a")


def test_an_exclamation_mark_in_brackets_is_one_of_the_key() -> None:
    assert matches(["[!]important:*"], b"!important:1")
    assert matches(["*", "!!*"], b"important")
    assert not matches(["*", "!!*"], b"!important")


def test_what_redis_cannot_leave_out_of_a_scan_is_left_out_here() -> None:
    assert scan_match(["share:*", "!share:tmp:*"]) == (b"share:*", False)
    assert scan_match(["*", "!tmp:*"]) == (b"*", False)


@pytest.mark.unmeasured
@pytest.mark.both_kinds
def test_matching_agrees_with_a_real_server(redis_server: RedisServer) -> None:
    with Redis(port=redis_server.port) as client:

        @settings(max_examples=700, deadline=None)
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
            assert matches([pattern], key.encode()) == bool(client.keys(pattern)), (pattern, key)

        agree()
