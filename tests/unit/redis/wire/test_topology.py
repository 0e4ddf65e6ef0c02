"""What the nodes of a cluster say, whom to believe, and which ledger a primary has."""

from dataclasses import replace

import pytest

from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.slots import SLOTS, Numbering, slot_of
from bridge.redis.wire.cluster_nodes import Claim, Node, claims, merged

NAMES = Names("expiry-bridge", 0)
ASKED = ("10.0.0.9", 7000)
HALF = SLOTS // 2


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"foo", 12182),
        (b"", 0),
        (b"{user1000}.following", slot_of(b"user1000")),
        (b"a{user1000}b{x}", slot_of(b"user1000")),
        (b"foo{}{bar}", 8363),
        (b"{", slot_of(b"{")),
        (b"123456789", 0x31C3 % SLOTS),
    ],
)
def test_a_key_has_the_slot_that_redis_gives_it(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


def one(line: str, *, tls: bool = False) -> Claim:
    """The claim in a line of CLUSTER NODES."""
    (claim,) = claims(line + "\n", ASKED, tls=tls)
    return claim


def test_a_line_says_where_a_primary_is_and_what_it_has_and_gives_away_and_takes() -> None:
    claim = one("ab 10.0.0.1:6379@16379 myself,master - 0 0 7 connected 0-99 500 [7->-cd] [900-<-ef]")
    assert (claim.id, claim.address, claim.epoch, claim.own) == ("ab", ("10.0.0.1", 6379), 7, True)
    assert [*claim.slots] == [range(100), range(500, 501)]
    assert claim.moving == {7, 900}


@pytest.mark.parametrize(
    ("where", "address"),
    [
        (":25589@25588", ("10.0.0.9", 25589)),
        ("::1:6379@16379", ("::1", 6379)),
        ("10.0.0.1:6379@16379,redis-1.example", ("10.0.0.1", 6379)),
        ("10.0.0.1:6379@16379,,shard-id=1f", ("10.0.0.1", 6379)),
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
    ],
)
def test_addresses_of_all_versions_are_understood(where: str, address: tuple[str, int]) -> None:
    assert one(f"ab {where} master - 0 0 1 connected 0-1").address == address


def test_with_tls_a_node_is_asked_by_the_name_that_its_certificate_is_of() -> None:
    line = "ab 10.0.0.1:6379@16379,redis-1.example master - 0 0 1 connected 0-1"
    assert one(line, tls=True).address == ("redis-1.example", 6379)
    assert one(line.replace(",redis-1.example", ""), tls=True).address == ("10.0.0.1", 6379)


@pytest.mark.parametrize(
    "line",
    [
        "ab 10.0.0.1:6379@16379 slave cd 0 0 1 connected",
        "ab 127.0.0.1:1@2 handshake - 0 0 0 disconnected",
        "ab :0@0 master,noaddr - 0 0 5 disconnected 0-5",
    ],
)
def test_replicas_and_nodes_that_nobody_can_reach_are_left_out(line: str) -> None:
    assert [*claims(line, ASKED)] == []


def claim(id_: str, epoch: int, *slots: range, own: bool = False, moving: frozenset[int] = frozenset()) -> Claim:
    """What somebody says of a node."""
    return Claim(id_, (id_, 1), epoch, slots, moving, own)


def test_of_two_that_claim_a_slot_the_newer_configuration_has_it_in_any_order() -> None:
    cut_off = (claim("old", 1, range(HALF), own=True), claim("other", 2, range(HALF, SLOTS)))
    majority = (claim("new", 7, range(HALF)), claim("other", 2, range(HALF, SLOTS), own=True))
    for views in ((cut_off, majority), (majority, cut_off)):
        nodes = merged(views)
        assert {node.id: min(node.slots) for node in nodes} == {"new": 0, "other": HALF}


def test_a_node_that_comes_back_elsewhere_is_where_the_others_say_whatever_it_said_of_itself_before() -> None:
    before = replace(claim("a", 5, range(9), own=True), address=("old", 1))
    now = replace(claim("a", 5, range(9)), address=("new", 1))
    (node,) = merged([(now,)], [(before,)])
    assert node.address == ("new", 1)
    (node,) = merged([], [(before,)])
    assert node.address == ("old", 1)


def test_a_primary_has_the_ledger_of_the_smallest_number_that_lies_on_it() -> None:
    slots = {"a": frozenset(range(HALF)), "b": frozenset(range(HALF, SLOTS)), "none": frozenset[int]()}
    numbers = Numbering(NAMES).of(slots)
    assert sorted(numbers.values()) == ["a", "b"]
    for number, node in numbers.items():
        assert slot_of(NAMES.of(number).outbox) in slots[node]
        assert all(slot_of(NAMES.of(smaller).outbox) not in slots[node] for smaller in range(number))


def test_a_single_slot_has_a_ledger_and_each_number_belongs_to_one_node_only() -> None:
    slots = {str(slot): frozenset({slot}) for slot in range(16)} | {"rest": frozenset(range(16, SLOTS))}
    numbers = Numbering(NAMES).of(slots)
    assert sorted(numbers.values()) == sorted(slots)
    assert numbers[0] == "rest"


def test_a_node_is_called_by_its_address() -> None:
    assert str(Node("ab", ("10.0.0.1", 6379), frozenset())) == "10.0.0.1:6379"
