"""What is read back from streams that others can write to, too: dead letters, and the entries of the outbox.

Whatever is there becomes an event that can be published, or is said to be unreadable; nothing else is raised.
"""

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.cloudevents import Encoder
from bridge.contracts import DeadLetter
from bridge.expiration import GAP_KEY, MISSING, Event, Expiration, FieldExpiration, GapRecord, Identity, Value, Via
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.ledger.letters import fields_of, letter_of
from tests.support.fuzz import ID, NAMES, VALUES

pytestmark = pytest.mark.unmeasured

IDENTITY = Identity("/redis", 0)
TIMES = st.integers(0, 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
ELEMENTS = st.lists(st.binary(max_size=9), max_size=4)
CONTENTS = st.one_of(
    st.tuples(st.sampled_from(["string", "ReJSON-RL"]), st.binary(max_size=20)),
    st.tuples(st.sampled_from(["list", "set"]), ELEMENTS),
    st.tuples(st.just("hash"), ELEMENTS.map(lambda elements: elements * 2)),
    st.tuples(st.just("zset"), ELEMENTS.map(lambda members: [word for member in members for word in (member, b"1.5")])),
)
HELD = st.one_of(
    st.builds(
        lambda of, at, exact, size: Value(of[0], at, exact, of[1], size=size), CONTENTS, TIMES, st.booleans(), TIMES
    ),
    st.builds(lambda why, size: Value("string", missing=why, size=size), st.sampled_from(MISSING), TIMES),
)
EXPIRATIONS = st.builds(
    Expiration, st.just(ID), st.binary(max_size=20), st.none() | TIMES, TIMES, st.sampled_from(Via), st.none() | HELD
)
FIELDS = st.builds(
    FieldExpiration,
    *(st.just(ID), st.binary(max_size=20), st.binary(max_size=20), TIMES, TIMES, st.sampled_from(Via)),
)
FILLINGS = st.just((None, None)) | st.tuples(TIMES, TIMES)
GAPS = st.builds(
    lambda record, filling: record._replace(filled=filling[0], excess=filling[1]),
    st.builds(
        GapRecord, *(st.just(ID), TEXTS, TIMES, TIMES, TEXTS, st.none() | TIMES, TIMES, TIMES), key=st.just(GAP_KEY)
    ),
    FILLINGS,
)


def publishable(event: Event) -> None:
    """It encodes, in both modes, and its times are numbers that a consumer can hold."""
    for mode in ("structured", "binary"):
        message = Encoder("/redis", 0, mode).encode(event)
        assert message.id
        assert all(type(value) is str for value in message.attributes.values())


def stored(letter: DeadLetter) -> dict[bytes, bytes]:
    """The fields as Redis gives them back."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in fields_of(letter)]
    return dict(zip(words[::2], words[1::2], strict=True))


@given(EXPIRATIONS | FIELDS | GAPS, TEXTS)
def test_a_dead_letter_is_read_back_as_it_was(event: Event, reason: str) -> None:
    letter = DeadLetter(event, reason)
    assert letter_of(stored(letter)) == letter
    publishable(event)


@given(st.dictionaries(NAMES, VALUES, max_size=10), st.none() | EXPIRATIONS | FIELDS | GAPS)
@example({b"deadline_ms": b"9" * 30}, Expiration(ID, b"k", 1, 2, Via.SWEEP))
@example({b"closed_ms": b"9" * 18}, GapRecord(ID, "n", 1, 2, "c", None, 0, 0))
def test_any_fields_are_a_letter_or_said_to_be_none(fields: dict[bytes, bytes], base: Event | None) -> None:
    if base is not None:
        fields = stored(DeadLetter(base, "r")) | fields
    letter = letter_of(fields)
    if letter is not None:
        publishable(letter.event)


# The outbox.

PACKED: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.binary(max_size=8),
        st.sampled_from([b"n", b"s", b"k", b"1", b""]),
    ),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.binary(max_size=2), inner, max_size=3),
    max_leaves=12,
)
CLAIMS = st.lists(
    st.tuples(st.binary(max_size=8), st.sampled_from([False]) | TIMES, st.sampled_from([b"n", b"s"])), max_size=5
).map(lambda claims: [part for claim in claims for part in claim])
GAP_PARTS = st.lists(TIMES.map(lambda number: b"%d" % number) | st.just(b"n") | st.just(b""), min_size=7, max_size=7)


@given(
    st.dictionaries(
        st.sampled_from([b"at", b"claims", b"gap", b"else", b"exact:0", b"value:1"]),
        st.one_of(
            st.binary(max_size=30),
            st.just(b"1"),
            (PACKED | CLAIMS | GAP_PARTS).map(msgpack.packb),
            st.builds(b"%b %b %b %b %b\n%b".__mod__, st.tuples(*[VALUES] * 5, PACKED.map(msgpack.packb))),
        ),
        max_size=5,
    )
)
@example({b"at": b"1"})
@example({b"at": b"1", b"claims": msgpack.packb([])})
@example({b"at": b"1", b"claims": msgpack.packb([b"k", 2**64 - 1, b"n"])})
@example({b"at": b"1", b"claims": msgpack.packb([b"k", float("inf"), b"n"])})
@example({b"at": b"1", b"claims": msgpack.packb([[b"k"], 1, b"n"])})
@example({b"at": b"1", b"claims": msgpack.packb([b"k", 1, [b"n"]])})
@example({b"at": b"1", b"claims": msgpack.packb(5)})
@example({b"at": b"1", b"claims": msgpack.packb([b"k", 1, b"n"]), b"exact:0": b"1 2 hash  3\n" + msgpack.packb([b"f"])})
@example(
    {b"at": b"1", b"claims": msgpack.packb([b"k", 1, b"n"]), b"exact:0": b"1 2 zset  3\n" + msgpack.packb([b"f"] * 2)}
)
@example({b"at": b"1", b"claims": msgpack.packb([b"k", 1, b"n"]), b"value:0": b"1 2 string perhaps 3\n"})
@example({b"at": b"1", b"claims": msgpack.packb([b"k", 1, b"n"]), b"value:1": b"1 2 string  3\nv"})
@example({b"at": b"1", b"claims": b"\x91" * 10_000})
@example({b"at": b"1", b"claims": b"\xdd\xff\xff\xff\xff"})
@example({b"gap": msgpack.packb([1, 2, 3, 4, 5, 6, 7])})
def test_any_entry_of_the_outbox_is_events_or_unreadable(fields: dict[bytes, bytes]) -> None:
    try:
        entry = read_entry(IDENTITY, b"1-1", fields)
    except Unreadable:
        return
    assert entry.events, "nobody would ever settle it"
    for event in entry.events:
        publishable(event)


def test_an_entry_that_is_damaged_to_a_null_where_the_first_deadline_was_is_none_of_the_year_1970() -> None:
    with pytest.raises(Unreadable):
        read_entry(IDENTITY, b"1-1", {b"at": b"1", b"claims": msgpack.packb([b"k", None, b"n"])})
