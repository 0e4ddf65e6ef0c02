"""The protocol holds in the models; and each of its rules is needed: without it, the models find what goes wrong.

The bounds are small, so that this takes seconds. `python -m tests.model` searches further.
"""

from dataclasses import fields

import pytest

from tests.model.delivery import Delivery
from tests.model.ledger import Ledger
from tests.model.rules import Bounds, DeliveryBounds, DeliveryRules, Rules
from tests.model.search import search, walk

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(900)]

ALL_PUBLISHED, ONE_ID, NONE_INVENTED, GAPS_COVER = "all published", "one id", "none invented", "gaps cover"

HOLDS = {
    "everything a user does, cut off once": Bounds(user=2, time=3),
    "a scan at any time": Bounds(user=2, time=3, scans=1, ttls=(1,), plain=False, delete=False),
    "many operations, nothing fails": Bounds(user=3, time=4, faults=0, scans=1, ttls=(1,)),
    "cut off twice, and what each gap covers": Bounds(user=1, time=3, faults=2, span=True, ttls=(1,), plain=False),
    "lost replies, paused writes, a full outbox, FLUSHDB": Bounds(
        user=2, time=3, cut=False, lost_reply=True, pause=True, full=True, flush=True
    ),
    "the same deadline again, ahead and past": Bounds(
        user=2, time=3, absolute=2, past=True, ttls=(1,), plain=False, delete=False
    ),
    "RENAME": Bounds(keys=2, user=2, time=2, rename=True, ttls=(1,), plain=False, delete=False, batch=2),
    "two keys, touched one by one": Bounds(
        keys=2, user=2, time=2, limit=1, ttls=(1,), plain=False, delete=False, batch=1
    ),
}


@pytest.mark.parametrize("bounds", HOLDS.values(), ids=HOLDS)
def test_the_ledger_protocol_keeps_its_promises(bounds: Bounds) -> None:
    found = search(Ledger(Rules(), bounds))

    assert found.violation is None, found.trace
    assert found.complete


@pytest.mark.parametrize(
    "bounds", [DeliveryBounds("ru", faults=1), DeliveryBounds("r", faults=2), DeliveryBounds("u", faults=2)], ids=str
)
def test_delivery_keeps_its_promises(bounds: DeliveryBounds) -> None:
    found = search(Delivery(DeliveryRules(), bounds))

    assert found.violation is None, found.trace
    assert found.complete


_ONE = Bounds(user=1, time=2, faults=0, ttls=(1,))
_TWO = Bounds(user=2, time=2, ttls=(1,), plain=False, delete=False)
_THREE = Bounds(user=3, time=2, ttls=(1,), plain=False)
_NEEDED = {
    "read_and_write_in_one_script": (_ONE, ONE_ID),
    "due_entries_stay": (Bounds(user=2, time=2, scans=1, ttls=(1,), plain=False, delete=False), ALL_PUBLISHED),
    "due_is_strictly_past": (_TWO, ALL_PUBLISHED),
    "every_expired_is_claimed": (Bounds(user=2, time=3, faults=0, plain=False, delete=False), ALL_PUBLISHED),
    "claims_pass_a_full_outbox": (Bounds(user=1, time=2, ttls=(1,), full=True, cut=False), ALL_PUBLISHED),
    "stream_order": (_ONE, ONE_ID),
    "wait_for_the_mark": (_ONE, ONE_ID),
    "resolve_at_the_mark": (_THREE, ALL_PUBLISHED),
    "touch_decides": (Bounds(user=2, time=3, faults=0, ttls=(1,), plain=False, delete=False), ONE_ID),
    "touch_changes_no_entry": (_TWO, ALL_PUBLISHED),
    "touch_is_a_write": (Bounds(user=1, time=2, ttls=(1,), pause=True, cut=False), ONE_ID),
    "resolve_reads_again": (Bounds(user=2, time=3, faults=0, ttls=(1,), plain=False, delete=False), ONE_ID),
    "resolve_is_of_the_entry": (Bounds(user=3, time=4, faults=0, scans=1, ttls=(1,), plain=False), ONE_ID),
    "resolve_leaves_to_hint": (Bounds(user=2, time=3, ttls=(1,), plain=False, delete=False), ALL_PUBLISHED),
    "ahead_keeps_from_expired": (
        Bounds(user=2, time=4, ttls=(1,), batch=2, plain=False, delete=False),
        ALL_PUBLISHED,
    ),
    "ahead_keeps_from_deleted": (_THREE, ALL_PUBLISHED),
    "unchanged_is_ahead": (Bounds(user=3, time=2, scans=1, ttls=(1,), batch=2, plain=False), ALL_PUBLISHED),
    "sequence_numbers": (Bounds(user=1, time=2, ttls=(1,), lost_reply=True, cut=False), ONE_ID),
    "ids_of_their_own": (Bounds(user=2, time=4, faults=0, ttls=(1,), plain=False, delete=False), ONE_ID),
    "walk": (Bounds(user=2, time=2, ttls=(1,), plain=False), NONE_INVENTED),
    "overdue_resolved_first": (Bounds(user=2, time=4, ttls=(1,), plain=False, delete=False), ALL_PUBLISHED),
    "count_ambiguous": (_TWO, ALL_PUBLISHED),
    "count_gone": (Bounds(user=2, time=2, plain=False, delete=False), ALL_PUBLISHED),
    "counts_outlive_epochs": (
        Bounds(user=2, time=2, faults=2, ttls=(1,), plain=False, delete=False),
        ALL_PUBLISHED,
    ),
    "gap_starts_subscribed": (_TWO, ALL_PUBLISHED),
    "seen_when_closed": (Bounds(user=2, time=1, faults=2, ttls=(1,), plain=False, span=True), GAPS_COVER),
}
_ECONOMY = {"claimed_is_resolved"}


@pytest.mark.parametrize("rule", _NEEDED)
def test_without_a_rule_the_ledger_protocol_fails(rule: str) -> None:
    bounds, promise = _NEEDED[rule]

    found = search(Ledger(Rules(**{rule: False}), bounds))

    assert found.violation is not None
    assert found.violation.startswith(promise), found.trace


def test_every_rule_of_the_ledger_is_one_or_the_other() -> None:
    assert {rule.name for rule in fields(Rules)} == set(_NEEDED) | _ECONOMY


@pytest.mark.parametrize("rule", sorted(_ECONOMY))
def test_what_only_saves_work_can_be_left_out(rule: str) -> None:
    found = search(Ledger(Rules(**{rule: False}), Bounds(user=2, time=3, ttls=(1,))))

    assert found.violation is None, found.trace
    assert found.complete


_NEEDED_IN_DELIVERY = {
    "fence": (DeliveryBounds("r", faults=1), ONE_ID),
    "fence_per_epoch": (DeliveryBounds("r", faults=1), ONE_ID),
    "sequence_numbers": (DeliveryBounds("r", faults=1), ONE_ID),
    "subscribe_under_the_lease": (DeliveryBounds("r", faults=1), ONE_ID),
    "outbox_until_settled": (DeliveryBounds("ru", faults=1), ALL_PUBLISHED),
    "settle_when_acked": (DeliveryBounds("r", faults=1), ALL_PUBLISHED),
}


@pytest.mark.parametrize("rule", [rule.name for rule in fields(DeliveryRules)])
def test_without_a_rule_delivery_fails(rule: str) -> None:
    bounds, promise = _NEEDED_IN_DELIVERY[rule]

    found = search(Delivery(DeliveryRules(**{rule: False}), bounds))

    assert found.violation is not None
    assert found.violation.startswith(promise), found.trace


def test_a_clock_that_is_set_back_gives_one_id_twice_which_is_not_promised_away() -> None:
    found = search(Ledger(Rules(), Bounds(user=2, time=3, ttls=(1,), plain=False, delete=False, clock_back=True)))

    assert found.violation is not None
    assert found.violation.startswith(ONE_ID)


_WIDE = Bounds(
    keys=2, time=8, user=7, faults=3, scans=2, limit=1,
    rename=True, lost_reply=True, pause=True, full=True, span=True,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_random_walks_beyond_the_bounds_find_nothing(seed: int) -> None:
    ledger = walk(Ledger(Rules(), _WIDE), seed, walks=200)
    delivery = walk(Delivery(DeliveryRules(), DeliveryBounds("rurur", faults=4)), seed, walks=200)

    assert ledger.violation is None, ledger.trace
    assert delivery.violation is None, delivery.trace
    assert ledger.states > 1000, "the walks went somewhere"
    assert delivery.states > 1000, "the walks went somewhere"
