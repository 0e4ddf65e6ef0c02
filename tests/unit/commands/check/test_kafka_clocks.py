"""What `check` makes of the brokers' clocks."""

import pytest

from bridge.commands.check.kafka.clocks import judged

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        ({"a:1": 0.2, "b:2": -0.9}, "pass", "those of 2 brokers: within 1 s of this machine's"),
        ({"a:1": 0.2, "b:2": 7200.0}, "warn", "that of b:2 is 7200.0 s ahead of this machine's"),
        ({"a:1": -1800.0}, "warn", "records that are more than 3600 s ahead are refused"),
        ({"a:1": 0.2, "b:2": -7200.0}, "fail", "b:2 refuse every record (INVALID_TIMESTAMP)"),
    ],
)
def test_a_difference_is_named_and_fails_where_records_are_refused_for_it(
    ahead: dict[str, float], level: str, words: str
) -> None:
    finding = judged(ahead, HOUR_MS)
    assert finding.level == level
    assert words in finding.found
    assert bool(finding.remedy) is (level != "pass")
