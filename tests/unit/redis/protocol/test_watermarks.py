"""Up to when the notifications of each primary were handled: what bridges tell each other, and where a gap begins."""

from bridge.redis.protocol.watermarks import Watermarks

A, B = "127.0.0.1:1", "127.0.0.1:2"


def told(*bridges: Watermarks, into: dict[str, str], now_ms: int) -> None:
    """Each tells in turn, and hears what all have told by then."""
    for bridge in bridges:
        for node, what in bridge.news():
            into.pop(node, None)
            if what:
                into[node] = what
        bridge.learn(now_ms, into)


def test_the_lease_tells_where_a_gap_begins_unless_the_ledger_is_another_one_than_before() -> None:
    marks = Watermarks()
    assert marks.since(A, 0, 50) == 50
    assert marks.since(A, 0, None) is None
    marks.handled(A, 0, 100)
    assert marks.since(A, 0, 90) == 90
    assert marks.since(A, 0, None) == 100, "the lease was lost"
    assert marks.since(A, 3, None) == 100
    assert marks.since(A, 3, 150) == 100, "that lease tells of another primary"
    assert marks.since(A, 3, 70) == 70


def test_another_bridge_knows_what_was_handled_and_what_came_last_counts() -> None:
    all_, one, other = dict[str, str](), Watermarks(), Watermarks()
    for bridge in (one, other):
        bridge.look()({A})
    one.handled(A, 0, 100)
    told(one, other, into=all_, now_ms=1_000)
    assert other.since(A, 3, None) == 100
    other.handled(A, 3, 200)
    told(other, one, into=all_, now_ms=2_000)
    assert one.since(A, 4, None) == 200


def test_of_a_primary_that_is_new_all_is_known_up_to_the_last_look_without_it() -> None:
    all_, marks, later = dict[str, str](), Watermarks(), Watermarks()
    marks.look()({A})
    told(marks, into=all_, now_ms=1_000)
    marks.look()({A})
    told(marks, into=all_, now_ms=2_000)
    assert marks.since(B, 5, None) is None
    marks.look()({A, B})
    assert marks.since(B, 5, None) == 1_000
    later.look()({A, B})
    told(later, into=all_, now_ms=2_500)
    assert later.since(B, 5, None) == 1_000, "so it is for who has just been started"
    told(marks, into=all_, now_ms=3_000)
    assert all_[B] == "-1 1000"
    assert all_["look"] == "2000"


def test_a_node_that_has_no_slots_any_more_is_forgotten_by_all() -> None:
    all_, marks = dict[str, str](), Watermarks()
    marks.look()({A, B})
    marks.handled(B, 1, 100)
    told(marks, into=all_, now_ms=1_000)
    marks.look()({A})
    told(marks, into=all_, now_ms=2_000)
    assert B not in all_
    assert marks.since(B, 1, None) is None


def test_what_was_told_in_vain_is_told_again() -> None:
    marks = Watermarks()
    marks.look()({A})
    marks.handled(A, 0, 100)
    assert marks.news() == [(A, "0 100")]
    assert marks.news() == [(A, "0 100")]
    marks.learn(1_000, {A: "0 100"})
    assert marks.news() == []
