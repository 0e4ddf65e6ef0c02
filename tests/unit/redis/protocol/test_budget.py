"""How much is sent and asked for at once, after what was answered and what was not."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bridge.limits import EpochLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.budget import Budget, Portion

LIMITS = replace(EpochLimits(), batch_bytes=1600, least_batch_bytes=100, batch_recovery=10, batch_patience=40)


def test_a_script_without_a_reply_halves_what_the_next_one_may_take_down_to_the_least() -> None:
    budget = Budget(LIMITS)
    sizes = []
    for now in range(6):
        budget.failed(now)
        sizes.append(budget.bytes)
    assert sizes == [800, 400, 200, 100, 100, 100]


def test_more_is_tried_again_after_a_while_and_later_each_time_that_fails() -> None:
    budget = Budget(LIMITS)
    budget.failed(0)
    budget.worked(9)
    assert budget.bytes == 800
    budget.worked(10)
    assert budget.bytes == 1600
    budget.failed(11)
    budget.worked(30)
    assert budget.bytes == 800
    budget.worked(31)
    assert budget.bytes == 1600
    for now in range(40, 50):
        budget.failed(now)
    budget.worked(49 + 39)
    assert budget.bytes == 100
    budget.worked(49 + 40)
    assert budget.bytes == 200


def test_a_failure_long_ago_is_forgotten() -> None:
    budget = Budget(LIMITS)
    budget.failed(0)
    budget.worked(10)
    budget.worked(20)
    budget.failed(1000)
    budget.worked(1010)
    assert budget.bytes == 1600


@given(st.lists(st.integers(1, 10_000), min_size=1))
def test_a_portion_of_equal_things_soon_fits_and_grows_to_twice_as_many_at_most(sizes: list[int]) -> None:
    portion = Portion(1000, first=4)
    for size in sizes:
        before = portion.of(1_000_000)
        portion.took(before, before * size)
        count = portion.of(1_000_000)
        assert 1 <= count <= 2 * before + 1
        assert count == 1 or count * size <= 1000


def test_a_portion_that_does_not_arrive_is_halved_and_is_one_at_least() -> None:
    portion = Portion(1000, first=4)
    counts = []
    for _ in range(4):
        counts.append(portion.of(100))
        portion.failed()
    assert counts == [4, 2, 1, 1]
    assert Portion(1000, first=4).of(3) == 3


def test_a_batch_is_cut_between_operations_and_says_how_many_notifications_it_handles() -> None:
    seen = op.resolve(b"rrrr", b"5", b"gone", b"1")
    batch = [*op.expired(b"aaaa"), *seen, *op.expired_ahead(b"bbbb"), *op.placed(b"mmmm", 1, b"0"), *op.gone(b"dddd")]
    assert list(op.pieces(batch, 8)) == [
        [*op.expired(b"aaaa"), *seen],
        [*op.expired_ahead(b"bbbb"), *op.placed(b"mmmm", 1, b"0")],
        list(op.gone(b"dddd")),
    ]
    assert [word for piece in op.pieces(batch, 1) for word in piece] == batch
    assert op.notified(batch) == 2
    assert list(op.each(batch))[1] == seen
