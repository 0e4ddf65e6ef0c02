"""The notification session, fed with whatever bytes a broken or hostile server may send.

It takes the hints, or ends with a reason; it never raises, and what it keeps is bounded.
"""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.limits import WireLimits
from bridge.redis.protocol.inbox import Hint, Inbox
from bridge.redis.protocol.notifications import channels
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import OptionalChannels, Subscription
from bridge.settings import Settings
from tests.support.fuzz import split
from tests.support.redis.notifications import CHANNELS, CONFIRMED, hint

pytestmark = pytest.mark.unmeasured

EXPIRED = CHANNELS[0]
KEYS = st.lists(st.binary(max_size=20), max_size=8)
ELSEWHERE = b"__keyevent@7__:expired"

RESP = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
        st.binary(max_size=8).map(lambda text: b"$%d\r\n%b\r\n" % (len(text), text)),
        st.sampled_from([b"message", b"subscribe", b"pong", EXPIRED]).map(lambda w: b"$%d\r\n%b\r\n" % (len(w), w)),
        st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"_\r\n", b"#t\r\n", b",inf\r\n", b"(12\r\n", b"+OK\r\n"]),
        st.sampled_from([b"-ERR no\r\n", b"-\xff\r\n", b"=5\r\ntxt:a\r\n"]),
    ),
    lambda inner: st.builds(
        lambda kind, items: b"%c%d\r\n" % (kind, len(items) // (2 if kind in b"%|" else 1)) + b"".join(items),
        st.sampled_from(b"*>~%|"),
        st.lists(inner, max_size=4),
    ),
    max_leaves=8,
)
"""Anything that a parser of RESP2 or RESP3 takes, or nearly."""


def session(inbox: Inbox, elsewhere: Iterable[bytes] = (), limits: WireLimits | None = None) -> Subscription:
    """A session without a connection. Who uses it is in an event loop."""
    return Subscription(
        CHANNELS, inbox, lambda: None, Endpoint.of(Settings(), limits), OptionalChannels(list(elsewhere))
    )


def feed(
    *chunks: bytes, elsewhere: Iterable[bytes] = (), limits: WireLimits | None = None
) -> tuple[list[Hint], str | None]:
    """What a session makes of these bytes: hints, and why it is over."""

    async def fed() -> tuple[list[Hint], str | None]:
        hints = Inbox(limits or WireLimits())
        subscription = session(hints, elsewhere, limits)
        for chunk in chunks:
            if subscription.ended is None:  # asyncio gives nothing more once the transport is aborted
                subscription.data_received(chunk)
        return list(hints), subscription.ended

    return asyncio.run(fed())


@given(KEYS, st.lists(st.integers(0, 10_000), max_size=20))
def test_however_a_stream_is_split_the_hints_are_the_same(keys: list[bytes], cuts: list[int]) -> None:
    stream = CONFIRMED + b"".join(hint(key) for key in keys)
    assert feed(*split(stream, cuts)) == ([(b"__keyevent@0__:expired", key) for key in keys], None)


@given(KEYS, st.integers(0, 10_000))
def test_of_a_truncated_stream_the_complete_hints_are_taken_and_no_more(keys: list[bytes], end: int) -> None:
    messages = [hint(key) for key in keys]
    stream = b"".join(messages)
    end %= len(stream) + 1
    complete = sum(len(b"".join(messages[: n + 1])) <= end for n in range(len(keys)))
    hints, ended = feed(CONFIRMED, stream[:end])
    assert [key for _, key in hints] == keys[:complete]
    assert ended is None


@given(
    keys=KEYS,
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), max_size=4),
    confirmed=st.booleans(),
)
def test_changed_bytes_make_hints_or_an_end_with_a_reason(
    keys: list[bytes], changes: list[tuple[int, bytes]], *, confirmed: bool
) -> None:
    stream = bytearray(b"".join(hint(key) for key in keys))
    for anywhere, replacement in changes:
        place = anywhere % (len(stream) + 1)
        stream[place : place + len(replacement)] = replacement
    check(*feed(CONFIRMED if confirmed else b"", bytes(stream)))


@given(replies=st.lists(RESP | st.binary(max_size=30), max_size=6), confirmed=st.booleans())
@example(replies=[b"*0\r\n"], confirmed=True)
@example(replies=[b"%1\r\n*0\r\n+a\r\n"], confirmed=True)
@example(replies=[b"*4000000000\r\n"], confirmed=True)
@example(replies=[b"*1\r\n" * 100_000 + b":1\r\n"], confirmed=True)
@example(replies=[b"*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n"], confirmed=True)
@example(replies=[b"*3\r\n$7\r\nmessage\r\n*0\r\n$1\r\nk\r\n"], confirmed=True)
@example(replies=[b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nk\r\n"], confirmed=True)
@example(replies=[b"*3\r\n$9\r\nsubscribe\r\n*0\r\n:1\r\n"], confirmed=False)
@example(replies=[b"*1\r\n$9\r\nsubscribe\r\n"], confirmed=False)
def test_any_replies_make_hints_or_an_end_with_a_reason(replies: list[bytes], *, confirmed: bool) -> None:
    for others in ([], [ELSEWHERE]):
        check(*feed(CONFIRMED if confirmed else b"", *replies, elsewhere=others))


def check(hints: list[Hint], ended: str | None) -> None:
    """A hint is of a channel that was asked for; a reason is one line."""
    known = {*channels(0), ELSEWHERE}
    assert all(channel in known and type(key) is bytes for channel, key in hints)
    assert ended is None or (ended and "\n" not in ended)


@given(st.sampled_from([b"*-1\r\n", b"$-1\r\n", b"_\r\n", b"#f\r\n", b"*0\r\n", b"+OK\r\n"]))
def test_a_reply_that_says_nothing_holds_up_no_hint_behind_it(nothing: bytes) -> None:
    hints, ended = feed(CONFIRMED + nothing + hint(b"k") + nothing)
    assert ([key for _, key in hints], ended) == ([b"k"], None)


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (b"$999999999999\r\n", b"x"),
        (b"*3\r\n$7\r\nmessage\r\n$999999999\r\n", b"x"),
        (b"*1000000\r\n", b"$4\r\nmore\r\n"),
        (b"+", b"x"),
        (b"-ERR ", b"x"),
    ],
)
def test_a_message_that_does_not_end_is_not_kept_without_bound(head: bytes, chunk: bytes) -> None:
    part, limits = chunk * (10_000 // len(chunk)), WireLimits(backlog_bytes=100_000)
    assert feed(CONFIRMED, head, *[part] * 8, limits=limits) == ([], None)
    assert feed(CONFIRMED, head, *[part] * 11, limits=limits) == ([], "Redis sent a message of more than 100000 bytes")


async def test_what_is_complete_does_not_count_against_what_is_not() -> None:
    limits = WireLimits(backlog_bytes=1000)
    hints = Inbox(limits)
    subscription = session(hints, limits=limits)
    for _ in range(200):
        subscription.data_received(hint(b"x" * 20))
        hints.take()
    assert subscription.ended is None


def test_an_endless_error_is_not_repeated_in_full() -> None:
    _, ended = feed(b"-ERR " + b"x" * 10_000 + b"\r\n")
    assert ended is not None
    assert len(ended) < 1000
