"""Hints of hashes: what is kept of them until the hash is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.redis.protocol.fields import DELETED, EXPIRED, KNOWN, LOST, TIMED, WAITED, FieldHints, Hint, Reasons, named
from bridge.redis.protocol.notifications import FIELD_FLAGS, Kind, channels, field_channels, missing_flags
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher

NAMES = Names("expiry-bridge", 0)
MANY = 1_000


def hints(patterns: str = "*") -> FieldHints:
    return FieldHints(NAMES, matcher(patterns.split(",")))


def taken(found: FieldHints) -> dict[bytes, bytes]:
    """Hashes, and why they are to be read."""
    return {key: reasons.why for key, reasons in found.take(100, MANY)}


def test_hints_of_one_hash_are_one() -> None:
    found = hints()
    for kind in (Kind.FIELD_TIMED, Kind.FIELD_EXPIRED, Kind.FIELD_DELETED, Kind.FIELD_EXPIRED):
        assert found.notified(b"", kind, b"h")

    assert len(found) == 1
    assert taken(found) == {b"h": TIMED + EXPIRED + DELETED}
    assert not found
    assert found.bytes == 0


def test_so_many_hashes_are_read_at_once_as_their_names_have_bytes_for_but_one_at_least() -> None:
    found = hints()
    for key in (b"long", b"a", b"b", b"c"):
        found.add(key)

    assert [[key for key, _ in found.take(10, 2)] for _ in range(3)] == [[b"long"], [b"a", b"b"], [b"c"]]
    assert (len(found), found.bytes) == (0, 0)


def test_a_hash_that_is_unfinished_is_read_again_and_decided_anew() -> None:
    found = hints()
    found.notified(b"", Kind.NAMED_EXPIRED, b"1:h|1:a")
    found.add(b"h", EXPIRED + DELETED + WAITED)
    found.add(b"finished", EXPIRED)
    found.go_on([b"h", b"due"], found.take(10, MANY))

    ((key, reasons),) = found.take(10, MANY)
    assert (key, reasons) == (b"h", Reasons(TIMED + DELETED, [b"a"]))


@pytest.mark.parametrize("kind", [Kind.FIELD_SET, Kind.FIELD_DELETED, Kind.EXPIRED, Kind.GONE])
def test_what_gives_no_field_a_deadline_is_of_a_hash_of_the_ledger_only(kind: Kind) -> None:
    found = hints()
    found.notified(b"", kind, b"h")

    ((_, reasons),) = found.take(1, MANY)
    assert KNOWN in reasons.why

    found.give_back([(b"h", reasons)])
    found.notified(b"", Kind.APPEARED, b"h")
    assert KNOWN not in taken(found)[b"h"]


def test_what_is_told_of_the_key_itself_is_for_others_as_well() -> None:
    found = hints()
    assert not found.notified(b"", Kind.EXPIRED, b"h")
    assert not found.notified(b"", Kind.ELSEWHERE, b"other")
    assert taken(found) == {b"h": KNOWN + DELETED}


@pytest.mark.parametrize("event", [b"rename_to", b"copy_to", b"move_to", b"restore"])
def test_a_hash_that_takes_the_place_of_another_one_may_have_ended_its_fields(event: bytes) -> None:
    found = hints()
    found.notified(b"__keyevent@0__:" + event, Kind.APPEARED, b"h")

    assert taken(found) == {b"h": DELETED}


def test_a_deadline_of_the_key_itself_says_nothing_of_fields() -> None:
    found = hints()
    for channel, kind in channels(0).items():
        if channel.endswith((b":expire", b":persist")):
            assert not found.notified(channel, kind, b"h")
    assert not found


def test_other_hashes_and_the_bridges_own_are_left_out() -> None:
    found = hints("h:*,!h:no*")
    for key in (b"other", b"h:no", b"{expiry-bridge:0:0}:lease", b"{another:0:0}:field:h:1"):
        assert found.notified(b"", Kind.FIELD_SET, key)
    assert not found


def test_a_hash_whose_index_was_evicted_is_read_anew() -> None:
    found = hints()
    found.notified(b"", Kind.GONE, NAMES.field_prefix + b"h")
    assert taken(found) == {b"h": b""}

    assert not found.emptied
    found.notified(b"", Kind.GONE, NAMES.fields)
    assert found.emptied


def test_a_hash_that_waits_for_a_mark_is_read_when_it_is_back_for_all_that_was_heard() -> None:
    found = hints()
    found.notified(b"", Kind.FIELD_DELETED, b"h")
    some: list[Hint] = found.take(10, MANY)
    found.notified(b"", Kind.FIELD_TIMED, b"h")  # behind the reading, while its reply was on its way
    found.wait(b"mark", [b"h", b"due"], some)
    found.notified(b"", Kind.FIELD_EXPIRED, b"h")
    found.notified(b"", Kind.FIELD_TIMED, b"other")

    assert found.waiting
    assert taken(found) == {b"other": TIMED}
    found.returned(b"another mark")
    assert not found

    found.returned(b"mark")
    assert {key: set(why) for key, why in taken(found).items()} == {
        b"h": {*DELETED, *WAITED, *TIMED, *EXPIRED},
        b"due": {*WAITED},
    }
    assert not found.waiting


def test_where_hints_were_lost_a_deletion_may_have_been_among_them() -> None:
    found = hints()
    found.notified(b"", Kind.FIELD_DELETED, b"h")
    found.clear()
    found.notified(b"", Kind.FIELD_SET, b"h")
    found.wait(b"mark", [b"h", b"due"], found.take(10, MANY))
    found.returned(b"mark")
    assert {key: set(why) for key, why in taken(found).items()} == {
        b"h": {*LOST, *WAITED},
        b"due": {*LOST, *WAITED},
    }


def test_what_is_unread_is_all_that_waits_for_its_turn_or_for_a_mark() -> None:
    found = hints()
    found.notified(b"", Kind.FIELD_TIMED, b"h")
    found.wait(b"mark", [b"h"], found.take(10, MANY))
    found.notified(b"", Kind.FIELD_TIMED, b"other")
    assert found.unread() == {b"h", b"other"}


def test_names_of_fields_are_kept() -> None:
    found = hints()
    assert found.notified(b"", Kind.NAMED_EXPIRED, b"1:h|1:a,2:b,")
    assert found.notified(b"", Kind.NAMED_DELETED, b"1:h|1:c")
    assert found.notified(b"", Kind.NAMED_DELETED, b"of another form")

    ((key, reasons),) = found.take(10, MANY)
    assert (key, reasons.names()) == (b"h", {"expired": [b"a", b"b,"], "deleted": [b"c"]})
    assert reasons.why == TIMED


@given(st.binary(), st.lists(st.binary(), min_size=1))
def test_what_the_documentation_says_of_names_is_read(key: bytes, fields: list[bytes]) -> None:
    payload = b"%d:%b|" % (len(key), key) + b",".join(b"%d:%b" % (len(name), name) for name in fields)
    assert named(payload) == (key, fields)


def test_a_length_that_no_name_has_is_of_another_form() -> None:
    assert named(b"1" * 5_000 + b":h|1:a") is None


def test_the_names_of_very_many_fields_are_read_without_copying_what_is_left_of_them() -> None:
    class Counted(bytes):
        """Counts what is copied of it."""

        copied = 0

        def __getitem__(self, part: Any) -> Any:  # noqa: ANN401 - as of bytes
            found = super().__getitem__(part)
            Counted.copied += len(found)
            return found

        def partition(self, sep: Any) -> Any:  # noqa: ANN401 - likewise
            raise AssertionError("copies all of it")

    fields = [b"%d" % number for number in range(1_000)]
    payload = Counted(b"1:h|" + b",".join(b"%d:%b" % (len(name), name) for name in fields))

    assert named(payload) == (b"h", fields)
    assert Counted.copied <= len(payload)


@given(st.binary() | st.from_regex(rb"\A[0-9]{0,2}:?h?\|?([0-9]:?a?,?){0,3}\Z"))
def test_whatever_comes_instead_of_names_is_read_or_not(payload: bytes) -> None:
    found = named(payload)
    if found is not None:
        key, fields = found
        assert len(key) + sum(map(len, fields)) < len(payload)


def test_where_the_server_names_fields_no_end_is_told_of_twice() -> None:
    plain, naming = field_channels(3, named=False), field_channels(3, named=True)

    assert plain[b"__keyevent@3__:hexpired"] is Kind.FIELD_EXPIRED
    assert naming[b"__subkeyevent@3__:hexpired"] is Kind.NAMED_EXPIRED
    assert {channel.rpartition(b":")[2] for channel in plain} == {channel.rpartition(b":")[2] for channel in naming}
    assert not plain.keys() & channels(3).keys()
    assert missing_flags("AKE", FIELD_FLAGS) == ""
    assert missing_flags("Egxe", FIELD_FLAGS) == "h"
