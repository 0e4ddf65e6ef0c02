"""What the doctor says of a cluster, and what is one row of several nodes."""

import re

import pytest

from bridge.commands.check.findings import Finding, Level, failure, passed, warning
from bridge.commands.check.redis.cluster import by_node, judged
from bridge.redis.admin.cluster_state import ClusterState, state_of

FIRST, SECOND, THIRD = NAMES = [f"10.0.0.{number}:6379" for number in (1, 2, 3)]
NODES = """\
a 10.0.0.1:6379@16379 {a} - 0 0 1 connected 0-5460 {open}
b 10.0.0.2:6379@16379 {b} - 0 0 2 connected 5461-10922
c 10.0.0.3:6379@16379 {c} - 0 0 3 connected {slots}
ra 10.0.0.4:6379@16379 {ra} a 0 0 1 connected
rb 10.0.0.5:6379@16379 slave b 0 0 2 connected
rc 10.0.0.6:6379@16379 slave c 0 0 3 connected
"""
WELL = {"a": "myself,master", "b": "master", "c": "master", "ra": "slave", "open": "", "slots": "10923-16383"}


@pytest.mark.parametrize(
    ("changed", "level", "found", "remedy"),
    [
        ({}, "pass", "3 primaries serve all 16384 slots, each has a replica", ""),
        ({"slots": "10923-16000"}, "fail", "383 of 16384 slots are served by no primary", f"--cluster fix {FIRST}"),
        ({"c": "master,fail?"}, "fail", f"other nodes cannot reach {THIRD}", "start it"),
        ({"b": "master,fail", "ra": "slave,fail"}, "fail", f"other nodes cannot reach {SECOND}", "start it"),
        ({"open": "[7->-b]"}, "warn", "all 16384 slots; on their way to another one: 1", f"--cluster fix {FIRST}"),
        ({"ra": "slave,fail"}, "warn", f"can be lost: {FIRST}", f"add-node HOST:PORT {FIRST} --cluster-slave"),
        ({"ra": "slave,noaddr"}, "warn", f"can be lost: {FIRST}", f"add-node HOST:PORT {FIRST} --cluster-slave"),
    ],
)
def test_a_cluster_is_judged_by_what_its_nodes_say(
    changed: dict[str, str], level: str, found: str, remedy: str
) -> None:
    text = re.sub(r" +$", "", NODES.format(**{**WELL, **changed}), flags=re.MULTILINE)
    finding = judged(state_of({("10.0.0.1", 6379): text}))
    assert (finding.level, bool(finding.remedy)) == (level, bool(remedy))
    assert found in finding.found
    assert remedy in finding.remedy


def test_what_one_of_several_nodes_says_of_itself_and_others_counts() -> None:
    first = NODES.format(**WELL).replace(" \n", "\n")
    second = first.replace("myself,master", "master,fail?").replace(" master - 0 0 2", " myself,master - 0 0 2")
    state = state_of({("10.0.0.1", 6379): first, ("10.0.0.2", 6379): second})
    assert state == ClusterState(primaries=NAMES, failing=[FIRST], alone=[], unserved=0, moving=0)


def test_a_single_primary_is_spoken_of_as_one() -> None:
    text = "a :6379@16379 myself,master - 0 0 1 connected 0-16383\n"
    assert judged(state_of({("10.0.0.1", 6379): text})).found.startswith("1 primary serves all 16384 slots; without")


# Rows.

SLOW, QUICK = (passed(f"a key expired, and its notification came {ms} ms after its deadline") for ms in (12, 9))
FULL = warning("hz 500", "CONFIG SET hz 10")


def test_what_all_say_is_one_row_with_the_longest_duration() -> None:
    (row,) = by_node("canary", {FIRST: QUICK, SECOND: SLOW, THIRD: QUICK}, 3)
    assert (row.finding, row.nodes, row.where) == (SLOW, (FIRST, SECOND, THIRD), "every node")


def test_nodes_that_differ_are_named_the_worst_first() -> None:
    bad = failure("allkeys-lru", "noeviction")
    rows = by_node("eviction", {FIRST: FULL, SECOND: bad, THIRD: FULL}, 3)
    assert [(row.finding, row.nodes, row.where) for row in rows] == [
        (Finding(Level.FAIL, f"{SECOND}: allkeys-lru", "noeviction"), (SECOND,), SECOND),
        (Finding(Level.WARN, f"{FIRST}, {THIRD}: hz 500", "CONFIG SET hz 10"), (FIRST, THIRD), f"{FIRST}, {THIRD}"),
    ]


def test_a_check_that_has_nothing_to_say_of_a_node_is_no_row_and_many_names_are_cut_short() -> None:
    assert by_node("sentinels", dict.fromkeys(NAMES), 3) == []
    many = {f"10.0.1.{number}:6379": FULL for number in range(20)}
    (row,) = by_node("hz", {**many, FIRST: None}, 21)
    assert row.finding.found.endswith("10.0.1.7:6379 and 12 more: hz 500")
    assert len(row.nodes) == 20
