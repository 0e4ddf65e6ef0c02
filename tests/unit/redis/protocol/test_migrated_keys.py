"""Keys that move between the nodes of a cluster: what is known of them decides what becomes of their entries."""

from bridge.limits import EpochLimits, WireLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import GONE, MOVED, Applied, State, Touched
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.interpreter import Interpreter, Scope
from bridge.redis.protocol.marks import Marks, Purpose, Round
from bridge.redis.protocol.migrated_keys import KNOWN, LOOK_AGAIN, UNKNOWN, MigratedKeys, RecentClaims
from bridge.redis.protocol.notifications import Kind, channels
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.slots import slot_of
from tests.support.redis.operations import PLACED, alike, operations_in

NAMES = Names("expiry-bridge", 0)
MARK = NAMES.mark(7, 1)
LIMITS = EpochLimits()

SINCE_MS, NOW_MS = 100, 1_000
"""When the epoch began to listen, and when what has moved is gone through."""


def away(key: bytes) -> bool:
    """Whether another node has it."""
    return key.startswith(b"away")


class Node:
    """An epoch on a node of a cluster, as far as it is pure. Its gap is open."""

    def __init__(self, claims: RecentClaims | None = None, since_ms: int = SINCE_MS) -> None:
        self.gap = Gap("start", 0, since_ms)
        self.keys = MigratedKeys(away, claims or RecentClaims(LIMITS), LIMITS, self.gap, since_ms)
        self.keys.begin_pass(NOW_MS)
        self.marks = Marks()
        scope, self.inbox = Scope(NAMES, channels(0), None, LIMITS), Inbox(WireLimits())
        self.interpreter = Interpreter(scope, self.inbox, self.marks, migrated=self.keys)

    def notified(self, *events: tuple[str, bytes]) -> None:
        """Redis has notified that."""
        self.inbox.put([(b"__keyevent@0__:%b" % event.encode(), key) for event, key in events])

    def handled(self, *events: tuple[str, bytes]) -> None:
        """That was notified, and is in batches."""
        self.notified(*events)
        while self.interpreter.waiting:
            self.interpreter.batch()

    def touched(self, **states: bytes) -> None:
        """A touch saw that of these keys; its mark is back."""
        seen = [(name.replace("_", "-").encode(), b"1", state, b"1") for name, state in states.items()]
        touched = Touched(State(1_000_000, None, 0, 0), b"0", seen)
        self.marks.touch_left(Round.of(MARK, touched, Purpose(), 0.0))
        self.notified(("del", MARK))

    def placed(self, *keys: bytes, deadline_ms: int = 5) -> dict[bytes, bytes]:
        """Of entries that came from other nodes, by key, what Redis is told of their end."""
        self.keys.arrivals.extend((key, deadline_ms) for key in keys)
        operations = operations_in(self.interpreter.batch())
        return {operation[1]: operation[3] for operation in operations if alike(operation, PLACED)}


def test_of_a_key_that_came_from_another_node_redis_hears_whether_it_was_notified() -> None:
    node = Node()
    node.handled(("expired", b"a"), ("del", b"b"), ("restore", b"c"), ("expire", b"d"))
    found = node.placed(b"a", b"b", b"c", b"d", b"e")
    assert found == {b"a": KNOWN, b"b": KNOWN, b"c": KNOWN, b"d": UNKNOWN, b"e": UNKNOWN}


def test_a_deletion_in_a_slot_that_is_elsewhere_is_the_other_nodes() -> None:
    node = Node()
    node.handled(("del", b"away-deleted"), ("expired", b"away-expired"), ("restore", b"away-restored"))
    found = node.placed(b"away-deleted", b"away-expired", b"away-restored")
    assert found == {b"away-deleted": UNKNOWN, b"away-expired": KNOWN, b"away-restored": KNOWN}


def test_a_deletion_that_may_be_from_before_its_slot_came_is_the_other_nodes() -> None:
    node = Node()
    marks = [NAMES.mark(7, number) for number in range(2, 5)]
    node.interpreter.touching(marks[0])
    node.keys.came({slot_of(b"early"), slot_of(b"late")}, SINCE_MS)
    node.handled(("del", b"early"), ("expired", b"expired"))
    assert node.keys.new(b"early")
    node.handled(("del", marks[0]))
    node.handled(("del", b"early"))
    assert node.keys.new(b"early"), "that mark was sent before it was known that the slot came"
    node.interpreter.touching(marks[1])
    node.handled(("del", b"early"))
    assert node.keys.new(b"early")
    node.handled(("del", marks[1]), ("del", b"late"))
    assert not node.keys.new(b"early")
    assert node.placed(b"early", b"late", b"expired") == {b"early": UNKNOWN, b"late": KNOWN, b"expired": KNOWN}


def test_a_slot_that_went_again_is_not_new_when_it_comes_back() -> None:
    node = Node()
    for _ in range(2):
        node.keys.came({slot_of(b"a")}, SINCE_MS)
        node.interpreter.touching(MARK)
        node.keys.went({slot_of(b"a")})
        assert not node.keys.new(b"a")
    node.keys.came({slot_of(b"a")}, SINCE_MS)
    assert node.keys.new(b"a")


def test_what_had_to_be_notified_is_looked_at_twice() -> None:
    node = Node()
    assert node.placed(b"a", b"b", deadline_ms=SINCE_MS) == {b"a": LOOK_AGAIN, b"b": LOOK_AGAIN}
    node.handled(("expired", b"a"))
    assert node.placed(b"a", b"b", deadline_ms=SINCE_MS) == {b"a": KNOWN, b"b": LOOK_AGAIN}  # at once: that is no proof
    node.keys.begin_pass(NOW_MS)
    assert node.placed(b"a", b"b", deadline_ms=SINCE_MS) == {b"a": KNOWN, b"b": KNOWN}
    assert node.placed(b"c", deadline_ms=SINCE_MS - 1) == {b"c": UNKNOWN}
    assert node.placed(b"c", deadline_ms=NOW_MS) == {b"c": UNKNOWN}  # its notification will find the entry

    node.keys.came({slot_of(b"d")}, 2 * SINCE_MS)  # so nobody listened to its slot before
    assert node.placed(b"d", deadline_ms=SINCE_MS) == {b"d": UNKNOWN}
    assert node.placed(b"d", deadline_ms=2 * SINCE_MS) == {b"d": LOOK_AGAIN}


def test_what_was_told_of_a_key_is_forgotten_with_its_slot() -> None:
    node = Node()
    node.handled(("del", b"a"), ("del", b"b"))
    node.keys.went({slot_of(b"a")})
    assert node.placed(b"a", b"b") == {b"a": UNKNOWN, b"b": KNOWN}

    assert node.placed(b"c", deadline_ms=SINCE_MS) == {b"c": LOOK_AGAIN}
    node.keys.went({slot_of(b"c")})
    node.keys.came({slot_of(b"c")}, 2 * SINCE_MS)
    node.keys.begin_pass(NOW_MS)
    assert node.placed(b"c", deadline_ms=SINCE_MS) == {b"c": UNKNOWN}


def test_what_a_former_epoch_has_claimed_when_the_deadline_was_past_is_not_claimed_again() -> None:
    claims = RecentClaims(LIMITS)
    for since_ms, already in ((SINCE_MS, False), (10 * SINCE_MS, True)):
        node = Node(claims, since_ms)
        assert (node.placed(b"a", deadline_ms=5) == {b"a": KNOWN}) is already
        assert node.placed(b"a", deadline_ms=2 * SINCE_MS) != {b"a": KNOWN}, "of a later life"
        node.handled(("expired", b"a"), ("del", b"b"))
        assert not claims.after(b"a", 5) or already
        node.interpreter.applied(MARK, Applied(State(1000 * SINCE_MS, None, 0, 0), 1, 0, 0, 0, emptied=False, ahead=()))
        assert claims.after(b"a", 5)
        assert not claims.after(b"b", 5)


def test_what_the_same_batch_tells_of_such_a_key_counts_and_goes_before() -> None:
    node = Node()
    node.notified(("expired", b"a"), ("restore", b"b"))
    node.keys.arrivals.extend([(b"a", 5), (b"b", 6)])
    assert node.interpreter.batch() == [
        *op.expired(b"a"),
        *op.appeared(b"b"),
        *op.placed(b"a", 5, KNOWN),
        *op.placed(b"b", 6, KNOWN),
    ]


def test_only_the_last_keys_are_remembered() -> None:
    node = Node()
    node.handled(*[("del", b"%d" % number) for number in range(LIMITS.remembered_keys + 1)])
    assert node.placed(b"0", b"1") == {b"0": UNKNOWN, b"1": KNOWN}


def test_of_slots_that_never_moved_nothing_is_remembered_when_the_gap_is_closed() -> None:
    node = Node()
    node.gap.close()
    node.keys.came({slot_of(b"came")}, SINCE_MS)
    for key in (b"a", b"came", b"away"):
        node.keys.ended(key, Kind.EXPIRED)
    assert [node.keys.verdict(key, 5) for key in (b"a", b"came", b"away")] == [UNKNOWN, KNOWN, KNOWN]


def test_a_key_that_a_touch_found_moved_is_resolved_once_another_node_has_it() -> None:
    node = Node()
    node.gap.close()
    node.touched(away=MOVED, away_gone=GONE, here=MOVED, here_gone=GONE)

    # What is on its way is said to be elsewhere before it is, and to be here too early.
    operations = node.interpreter.batch()
    assert operations == [*op.resolve(b"away", b"1", MOVED, b"1"), *op.resolve(b"here-gone", b"1", GONE, b"1")]
    finished = node.marks.finished_round()
    assert finished is not None
    assert finished.stuck == 2
    assert node.placed(b"away", deadline_ms=SINCE_MS) == {b"away": LOOK_AGAIN}


def test_while_the_gap_is_open_what_is_on_its_way_does_not_keep_it_open() -> None:
    node = Node()
    node.touched(here=MOVED, away_gone=GONE)
    assert node.interpreter.batch() == list(op.resolve(b"here", b"1", MOVED, b"1"))


def test_another_ledger_that_appears_is_a_stray_and_what_is_no_ledger_is_none() -> None:
    node = Node()
    own, other = NAMES.lease, NAMES.of(7).outbox
    node.handled(("restore", own), ("restore", other), ("restore", NAMES.members), ("restore", NAMES.of(8).canary))
    assert node.keys.strays == {7}
