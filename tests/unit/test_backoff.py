"""Back-off grows, is capped, jitters, and starts again only on proven health."""

from random import Random

from bridge.backoff import Backoff


def test_delays_double_up_to_the_cap_and_jitter_below_it() -> None:
    backoff = Backoff(first=1, most=8, rng=Random(1))

    delays = [backoff.next() for _ in range(6)]

    for delay, ceiling in zip(delays, [1, 2, 4, 8, 8, 8], strict=True):
        assert ceiling / 2 <= delay <= ceiling
    assert len(set(delays)) == 6


def test_a_reset_starts_again_at_the_first_delay() -> None:
    backoff = Backoff(first=1, most=8)
    for _ in range(5):
        backoff.next()

    backoff.reset()

    assert backoff.next() <= 1
