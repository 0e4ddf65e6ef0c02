"""Which deletions of a replication stream were expirations: what is certain, and what Redis's count decides."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bridge.limits import BacklogLimits
from bridge.redis.backlog.journal import Unfillable
from bridge.redis.protocol.place import Announcement, Place
from tests.unit.redis.backlog.ground import BEGAN, FAR, MARK, MEASURED, NAMES, SHORT, Gap


def test_what_had_passed_its_deadline_before_the_gap_can_only_have_expired() -> None:
    gap = Gap(["DEL a", "DEL b"], expired=1, scores={b"a": BEGAN - 1})
    assert gap.expirations() == ["a"]
    assert ("del", "b") in gap.events(), "it had no entry, so it had no TTL"


def test_a_deletion_in_the_other_word_or_of_several_keys_is_a_users() -> None:
    stream = [f"SET {key} v PXAT {SHORT}" for key in "abcd"]
    gap = Gap([*stream, "UNLINK a", "DEL b c", "del d"], expired=0)
    assert gap.expirations() == []
    assert [key for event, key in gap.events() if event == "del"] == ["a", "b", "c", "d"]


def test_all_count_where_redis_has_counted_as_many() -> None:
    gap = Gap([f"SET a v PXAT {SHORT}", f"PEXPIREAT b {SHORT}", "DEL a", "DEL b"], expired=2)
    assert gap.expirations() == ["a", "b"]
    assert gap.judged()[1].excess == 0


def test_none_counts_where_redis_has_counted_none() -> None:
    gap = Gap([f"SET a v PXAT {SHORT}", "DEL a"], expired=0)
    assert gap.expirations() == []
    assert gap.events()[-1] == ("del", "a")


def test_where_only_some_can_be_the_excess_is_exact() -> None:
    gap = Gap([f"SET {key} v PXAT {SHORT}" for key in "abc"] + ["DEL a", "DEL b", "DEL c"], expired=1)
    assert gap.expirations() == ["a", "b", "c"]
    assert gap.judged()[1].excess == 2


def test_a_deadline_that_was_still_to_come_is_no_expirations() -> None:
    stream = [f"SET a v PXAT {SHORT}", f"SET b v PXAT {FAR}", "DEL a", "DEL b", f"SET c v PXAT {SHORT - 100}"]
    assert Gap(stream, expired=0).expirations() == [], "a's deadline is later than one that was set behind it"
    with pytest.raises(Unfillable, match="counts"):
        Gap(stream, expired=1).judged()


def test_a_key_takes_its_deadline_along_when_it_is_renamed() -> None:
    gap = Gap(["RENAME a b", "DEL b"], expired=1, scores={b"a": SHORT})
    assert gap.expirations() == ["b"]


def test_the_entry_of_a_later_life_says_nothing_of_an_earlier_one() -> None:
    gap = Gap(["DEL a", f"SET a v PXAT {FAR}"], expired=1, scores={b"a": FAR}, claims=[(b"a", BEGAN + 10)])
    assert gap.expirations() == ["a"], "the former epoch has claimed it"


def test_other_keys_count_but_are_not_announced() -> None:
    def ours(key: bytes) -> bool:
        return key.startswith(b"our")

    both = ["SELECT 1", "DEL theirs:1", "SELECT 0", "DEL their:2", f"SET our:1 v PXAT {SHORT}", "DEL our:1"]
    assert Gap(both, expired=3, matches=ours).expirations() == ["theirs:1", "their:2", "our:1"]
    assert ("expired", "theirs:1") in Gap(both, expired=3, matches=ours).events(), "it is notified elsewhere"
    with pytest.raises(Unfillable, match="look the same"):
        Gap(both, expired=1, matches=ours).judged()
    theirs = Gap(["DEL their:1", "DEL their:2"], expired=1, matches=ours).judged()[1]
    assert (theirs.excess, theirs.surplus) == (0, 1), "which one does not matter"


def test_a_canary_that_is_deleted_alone_has_expired() -> None:
    gap = Gap([[b"DEL", NAMES.canary], [b"DEL", NAMES.canary, MARK]], expired=1)
    assert gap.expirations() == [NAMES.canary.decode()]
    assert gap.events() == []


def test_no_other_key_of_the_bridges_own_ever_expires() -> None:
    assert Gap([[b"DEL", NAMES.shards], [b"DEL", b"{other:1:0}:mark:1-2"]], expired=0).expirations() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "ee" * 20}, "started again"),
        ({"evicted": 4}, "evicted"),
        ({"growing": (900, 12)}, "began anew"),
    ],
)
def test_counters_that_cannot_be_compared_say_nothing(change: dict[str, object], said: str) -> None:
    gap = Gap([f"SET a v PXAT {SHORT}", "DEL a"], expired=1)
    gap.now = replace(gap.now, **change)  # type: ignore[arg-type]
    with pytest.raises(Unfillable, match=said):
        gap.judged()


def test_a_word_that_was_changed_within_the_gap_does_not_fit_the_count() -> None:
    with pytest.raises(Unfillable, match="counts 2"):
        Gap([f"SET a v PXAT {SHORT}", "UNLINK a", "DEL b"], expired=2).judged()


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHDB",
        "FLUSHALL ASYNC",
        "SWAPDB 0 1",
        "JSON.DEL a $",
        "EVAL x 0",
        "SET a v EX 5",
        "RESTORE a 5 x",
        "PEXPIREAT a",
    ],
)
def test_what_may_do_anything_ends_in_a_gap(command: str) -> None:
    with pytest.raises(Unfillable):
        Gap([command], expired=0).journal()


@pytest.mark.parametrize("name", [NAMES.deadlines, NAMES.lease, NAMES.outbox])
def test_a_lost_key_of_the_bridges_own_ends_in_a_gap(name: bytes) -> None:
    for command in ([b"DEL", name], [b"UNLINK", b"a", name], [b"RENAME", name, b"a"], [b"RENAME", b"a", name]):
        with pytest.raises(Unfillable, match="own keys"):
            Gap([command], expired=0).journal()


def test_more_than_there_may_be_ends_in_a_gap() -> None:
    gap = Gap(["DEL a"] * 20, expired=0, limits=BacklogLimits(events=10))
    with pytest.raises(Unfillable, match="more than 10"):
        gap.journal()


def test_what_the_former_epoch_has_heard_and_not_claimed_was_deleted() -> None:
    stream = [f"SET {key} v PXAT {SHORT}" for key in "abc"] + ["DEL a", "DEL b", "DEL c"]
    gap = Gap(stream, expired=1, claims=[(b"b", None)], handled=1)
    assert gap.events()[-2:] == [("del", "a"), ("del", "c")]
    with pytest.raises(Unfillable, match="claimed more"):
        # It says of too little that it was handled.
        Gap(stream, expired=1, claims=[(b"b", SHORT)]).told()


def test_what_stands_before_the_place_and_was_not_claimed_was_deleted() -> None:
    both = [f"SET {key} v PXAT {SHORT}" for key in "ab"]
    stream: list[str | Sequence[bytes]] = [*both, "DEL a", [b"DEL", NAMES.mark(7, 4)], "DEL b"]
    gap = Gap(stream, expired=1, place_mark=NAMES.mark(7, 4))
    assert gap.events() == [("expired", "b")]


def test_a_claim_of_an_earlier_life_does_no_harm_where_the_count_decides() -> None:
    gap = Gap([f"SET a v PXAT {SHORT}", "DEL a"], expired=1, claims=[(b"a", None)])
    assert gap.events()[-1] == ("expired", "a")


# From there to what an epoch goes on with.


def test_what_was_handled_is_skipped_and_the_rest_is_told_in_order() -> None:
    stream = [f"SET {key} v PXAT {SHORT}" for key in "abc"] + ["DEL a", "DEL b", f"SET d v PXAT {FAR}", "DEL c"]
    gap = Gap(stream, expired=3, handled=1)
    assert [one for one in gap.events() if one[0] == "expired"] == [("expired", "b"), ("expired", "c")]


def test_what_was_handled_has_to_be_certain() -> None:
    stream = [f"SET {key} v PXAT {SHORT}" for key in "ab"] + ["DEL a", "DEL b"]
    with pytest.raises(Unfillable, match="certain"):
        Gap(stream, expired=1, handled=1).told()
    with pytest.raises(Unfillable, match="fewer"):
        Gap(stream, expired=2, handled=3).told()


def test_what_may_be_empty_is_looked_at() -> None:
    gap = Gap([f"PEXPIREAT a {FAR}", "LPOP a"], expired=0)
    assert gap.events() == [("expire", "a"), ("del", "a"), ("expire", "a")]


def test_an_expiration_that_was_heard_while_its_key_was_ahead_is_held() -> None:
    anchored = Place(MARK, 0, b"scope", 40, Gap([], 0).anchor)
    announced = [b"PUBLISH", NAMES.announcements, b"payload"]
    gap = Gap([f"SET a v PXAT {SHORT}", announced, "DEL a"], expired=1, handled=1)
    gap.announcements = {2: Announcement(NAMES.mark(7, 4), anchored, emptied=False, keys=[b"a"])}
    assert gap.told().held == [b"a"]
    gap.announcements = {2: Announcement(NAMES.mark(7, 4), anchored._replace(heard=41), emptied=False, keys=[b"a"])}
    assert gap.told().held == [], "that batch has claimed it"
    gap.announcements = {2: Announcement(NAMES.mark(7, 4), Place(MARK, 0, b"scope"), emptied=False, keys=[b"a"])}
    with pytest.raises(Unfillable, match="just begun"):
        gap.told()


def test_a_place_is_read_back_as_it_was() -> None:
    for anchor in (None, Gap([], 0).anchor):
        place = Place(MARK, 3, b"scope", 41 if anchor else 0, anchor)
        assert Place.parse(bytes(place)) == place
    assert MEASURED.of([word.encode() for word in MEASURED.words()]) == MEASURED
