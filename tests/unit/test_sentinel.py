"""Whom to believe when sentinels disagree."""

from bridge.redis.sentinel import Address, Answer, newest

OLD, NEW, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)


def says(address: Address, epoch: int) -> Answer:
    """One sentinel's answer."""
    return Answer("10.0.0.9:26379", address, epoch, frozenset({"master"}), quorum=2, others=2, replicas=1)


def test_one_sentinel_is_enough() -> None:
    assert newest([says(OLD, 0)]) == OLD


def test_the_newest_configuration_outweighs_any_number_of_older_ones() -> None:
    assert newest([says(OLD, 6), says(NEW, 7), says(OLD, 6)]) == NEW


def test_within_one_epoch_the_most_sentinels_are_right_in_any_order() -> None:
    answers = [says(OLD, 7), says(NEW, 7), says(NEW, 7), says(OTHER, 6)]
    assert newest(answers) == newest(answers[::-1]) == NEW
