"""Which timestamp a record has, and what becomes of it where the topic does not take it."""

import pytest

from bridge.sinks.kafka.timestamps import WAIT_MS, Timestamps, Verdict

NOW, MINUTE, TOPIC = 1_795_346_562_000, 60_000, "expired"


@pytest.mark.parametrize(
    ("age", "limit", "stamp_age"),
    [
        (600 * MINUTE, None, 600 * MINUTE),  # the topic takes all
        (600 * MINUTE, 2**63 - 1, 600 * MINUTE),
        (4 * MINUTE, 10 * MINUTE, 4 * MINUTE),
        (6 * MINUTE, 10 * MINUTE, 0),  # half of the limit: the broker's clock is another one
        (1, 0, 0),
        (-5 * MINUTE, 10 * MINUTE, -5 * MINUTE),  # never another time for a claim from the future
        (-5 * MINUTE, 0, -5 * MINUTE),
    ],
)
def test_a_record_has_the_time_of_its_claim_unless_the_topic_does_not_take_one_so_old(
    age: int, limit: int | None, stamp_age: int
) -> None:
    assert Timestamps().of(TOPIC, NOW - age, NOW, limit) == NOW - stamp_age


def test_what_is_refused_is_sent_with_the_time_of_sending_however_narrow_the_limit() -> None:
    times, claims = Timestamps(), [NOW - minutes * MINUTE for minutes in (600, 60, 6, 1)]
    for _ in range(40):
        stamps = [(claim, times.of(TOPIC, claim, NOW, None)) for claim in claims]
        if all(NOW - stamp < 10_000 for _, stamp in stamps):
            break
        assert times.refused(TOPIC, stamps, NOW) is Verdict.AGAIN
    else:
        pytest.fail("it never ends")
    assert times.of("another", claims[0], NOW, None) == claims[0]
    assert times.of(TOPIC, NOW, NOW, None) == NOW


def test_of_many_that_have_no_other_time_each_goes_alone_until_they_are_taken() -> None:
    times, stamps = Timestamps(), [(NOW + ahead, NOW + ahead) for ahead in (1, MINUTE)]
    assert times.refused(TOPIC, stamps, NOW) is Verdict.AGAIN
    assert times.alone(TOPIC)
    times.taken(TOPIC)
    assert not times.alone(TOPIC)


@pytest.mark.parametrize(
    ("claim", "stamp", "verdict"),
    [
        (NOW + WAIT_MS, NOW + WAIT_MS, Verdict.LATER),
        (NOW + WAIT_MS + 1, NOW + WAIT_MS + 1, Verdict.NEVER),
        (NOW - MINUTE, NOW, Verdict.LATER),  # this machine's clock is not the broker's
    ],
)
def test_one_alone_waits_unless_it_is_from_far_ahead(claim: int, stamp: int, verdict: Verdict) -> None:
    assert Timestamps().refused(TOPIC, [(claim, stamp)], NOW) is verdict
