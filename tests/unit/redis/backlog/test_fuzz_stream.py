"""Any replication stream is a journal, or fills no gap; and what is filled accounts for every expiration.

The second: a keyspace lives through random commands as Redis would have it, and tells what it has done and counted.
"""

from dataclasses import replace
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.limits import BacklogLimits
from bridge.redis.backlog.effects import effect
from bridge.redis.backlog.journal import Happened, Journal, Unfillable
from tests.unit.redis.backlog.ground import BEGAN, END, MARK, NAMES, Gap

COMMANDS = st.sampled_from(
    b"SET DEL UNLINK RENAME COPY MOVE RESTORE MSET MSETEX LMPOP SORT BITOP SELECT PUBLISH XADD PEXPIREAT XX".split()
)
WORDS = st.sampled_from([b"a", b"b", b"1", b"-1", b"PXAT", b"KEEPTTL", b"STORE", b"DB", b"", NAMES.outbox, MARK, END])


@given(st.lists(st.tuples(COMMANDS, st.lists(WORDS | st.binary(max_size=4), max_size=6)), max_size=30))
@example([(b"LMPOP", [b"9" * 30])])
@example([(b"XADD", [NAMES.outbox, b"1-1", b"claims"])])
def test_no_stream_makes_the_journal_raise_anything_else(stream: list[tuple[bytes, list[bytes]]]) -> None:
    journal = Journal(NAMES, Gap([], 0).anchor, END, BacklogLimits())
    try:
        journal.take([b"DEL", MARK])
        for name, words in stream:
            if journal.take([name, *words]):
                break
        journal.complete()
    except Unfillable:
        pass
    assert all(entry.what in Happened for entry in journal.entries)


KEYS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers(1, 40)),
    st.tuples(st.just("set"), KEYS, st.none()),
    st.tuples(st.just("delete"), KEYS, st.sampled_from(["DEL", "UNLINK"])),
    st.tuples(st.just("rename"), KEYS, KEYS),
    st.tuples(st.just("wait"), KEYS, st.integers(1, 30)),
)


class Keyspace:
    """What Redis would do, say and count. It expires keys when its time comes, or later, when they are touched."""

    def __init__(self, before: dict[str, int | None]) -> None:
        self.now = BEGAN
        self.keys = dict(before)
        self.stream: list[str] = []
        self.expired: list[str] = []

    def touch(self, key: str) -> bool:
        deadline = self.keys.get(key)
        if deadline is not None and self.now > deadline:
            del self.keys[key]
            self.stream.append(f"DEL {key}")
            self.expired.append(key)
        return key in self.keys

    def set(self, key: str, life: int | None) -> None:
        self.touch(key)
        self.keys[key] = None if life is None else self.now + life
        self.stream.append(f"SET {key} v" + ("" if life is None else f" PXAT {self.now + life}"))

    def delete(self, key: str, word: str) -> None:
        if self.touch(key):
            del self.keys[key]
            self.stream.append(f"{word} {key}")

    def rename(self, key: str, other: str) -> None:
        if self.touch(key) and key != other:
            self.touch(other)
            self.keys[other] = self.keys.pop(key)
            self.stream.append(f"RENAME {key} {other}")

    def wait(self, key: str, ms: int) -> None:
        self.now += ms
        self.touch(key)


@given(
    st.dictionaries(KEYS, st.none() | st.integers(-5, 50).map(lambda after: BEGAN + after)),
    st.lists(STEPS, max_size=40),
)
def test_what_is_filled_accounts_for_every_expiration(
    before: dict[str, int | None], steps: list[tuple[str, str, object]]
) -> None:
    redis = Keyspace(before)
    for name, key, argument in steps:
        getattr(redis, name)(key, argument)
    scores = {key.encode(): deadline for key, deadline in before.items() if deadline is not None}
    gap = Gap(redis.stream, len(redis.expired), scores=scores)
    gap.now = replace(gap.now, now_ms=redis.now)
    try:
        found, excess = gap.expirations(), gap.judged()[1].excess
    except Unfillable:
        return
    assert len(found) - excess == len(redis.expired)
    assert is_part(redis.expired, found), "none is lost, and they are in their order"


def is_part(part: list[str], whole: list[str]) -> bool:
    """Whether it is the whole but for some that were left out."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in part)


def test_the_table_of_commands_has_no_name_twice() -> None:
    names = [b"SET", b"DEL", b"LPOP", b"SORT"]
    assert all(effect(one) is not effect(other) for one, other in pairwise(names))
    assert effect(b"JSON.SET") is None
