"""What several primaries hold together."""

from bridge.expiration import Expiration, Via
from bridge.redis.admin.ledger_state import Expirations, LeaseState, LedgerState, mixed, total

LEASE = LeaseState("one", 5_000, 7, 900, {})
EMPTY = LedgerState(1_000, 0, None, 0, None, None, 0, 0, [None])
SOME = LedgerState(1_010, 3, 2_000, 1, 4, 990, 2, 1, [LEASE])
MORE = LedgerState(1_005, 5, 1_500, 2, 2, 995, 0, 0, [LEASE])


def test_what_can_be_added_up_is_and_of_times_the_first_counts() -> None:
    assert total([EMPTY, SOME, MORE]) == LedgerState(1_010, 8, 1_500, 3, 6, 990, 2, 1, [None, LEASE, LEASE])
    assert total([EMPTY]) == EMPTY


def test_of_all_expirations_the_first_ahead_and_the_last_that_wait_are_left() -> None:
    waiting = [Expiration(f"{at}", b"key", None, at, Via.SWEEP) for at in range(6)]
    parts = [
        Expirations([(b"a", 1), (b"c", 3)], [waiting[5], waiting[2]]),
        Expirations([(b"b", 2)], [waiting[4], waiting[3]]),
    ]
    assert mixed(parts, 2) == Expirations([(b"a", 1), (b"b", 2)], [waiting[5], waiting[4]])
    assert mixed(parts[:1], 2) == parts[0]
