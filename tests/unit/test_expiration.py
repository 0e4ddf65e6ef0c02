"""Ids: one occurrence, one id; two occurrences never share one."""

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from bridge.expiration import Identity


def test_the_id_is_the_documented_digest() -> None:
    parts = b"6:/redis,1:0,10:share:7f3a,1:d,13:1795346562164,"

    assert Identity("/redis", 0).of_deadline(b"share:7f3a", 1795346562164) == blake2b(parts, digest_size=16).hexdigest()


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 2)), max_size=10))
def test_the_ids_that_were_made_before_make_no_difference(expirations: list[tuple[bytes, int]]) -> None:
    identity = Identity("/redis", 0)
    for key, deadline_ms in expirations:
        assert identity.of_deadline(key, deadline_ms) == Identity("/redis", 0).of_deadline(key, deadline_ms)


def test_an_unknown_deadline_is_told_apart_by_the_place_in_the_outbox() -> None:
    identity = Identity("/redis", 0)

    ids = {identity.of_entry(b"k", entry, index) for entry in (b"7-1", b"7-2") for index in (0, 1)}

    assert len(ids) == 4


@given(st.lists(st.tuples(st.text(), st.integers(0, 20), st.binary(), st.integers(0, 2**63)), min_size=2, max_size=6))
def test_different_parts_give_different_ids(parts: list[tuple[str, int, bytes, int]]) -> None:
    made = {
        (source, db, key, deadline): Identity(source, db).of_deadline(key, deadline)
        for source, db, key, deadline in parts
    }

    assert len(set(made.values())) == len(made)


@given(st.binary(), st.integers(0, 2**63))
def test_a_known_deadline_never_has_the_id_of_an_unknown_one(key: bytes, deadline: int) -> None:
    identity = Identity("/redis", 0)

    assert identity.of_deadline(key, deadline) != identity.of_entry(key, b"%d" % deadline, 0)


def test_the_id_of_a_field_is_the_documented_digest() -> None:
    parts = b"6:/redis,1:0,10:share:7f3a,5:alice,1:f,13:1795346562164,"

    assert (
        Identity("/redis", 0).of_field(b"share:7f3a", b"alice", 1795346562164)
        == blake2b(parts, digest_size=16).hexdigest()
    )


@given(st.lists(st.tuples(st.binary(), st.binary(), st.integers(0, 2**63)), min_size=2, max_size=6))
def test_different_fields_have_different_ids_and_none_has_a_keys(parts: list[tuple[bytes, bytes, int]]) -> None:
    identity = Identity("/redis", 0)
    made = {part: identity.of_field(*part) for part in parts}
    keys = {(key, deadline): identity.of_deadline(key, deadline) for key, _, deadline in parts}

    ids = [*made.values(), *keys.values()]
    assert len({*ids}) == len(ids)
