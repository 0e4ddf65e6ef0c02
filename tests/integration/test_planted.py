"""Misconfigurations, planted on real servers: `check` finds each of them, and doing what it says fixes it.

The list is in `planted/`. A scene plants one or several at once, which must be all that `check` finds there. Then its
remedies are carried out, word for word, but for those that take another machine; then `check` must find no more than
that.
"""

import re

import pytest

from tests.integration.doctor import Rows, examine, levels
from tests.integration.ground import Ground
from tests.integration.planted import kafka, nats, publish, redis, streams
from tests.integration.planted.scenes import Build, Fault, Scene

SCENES = [scene for part in (redis, streams, nats, publish, kafka) for scene in part.scene.entered]


def test_the_list_has_more_than_twenty_faults() -> None:
    faults = {(fault.row, fault.found) for parameters in SCENES for fault in parameters.values[1]}
    assert len(faults) >= 40


@pytest.mark.parametrize(("build", "faults"), SCENES)
def test_each_planted_fault_is_found_and_its_remedy_fixes_it(
    ground: Ground, build: Build, faults: tuple[Fault, ...]
) -> None:
    made = build(ground)
    rows = examine(int(any(fault.level == "fail" for fault in faults)), *made.flags, **made.settings)
    assert wrong(rows, made) == {fault.row: fault.level for fault in faults}
    for fault in faults:
        row = rows[fault.row]
        assert re.match(made.pattern(fault.found), row["found"]), row["found"]
        assert re.fullmatch(made.pattern(fault.remedy), row["remedy"]), row["remedy"]
    left = {fault.row: fault.level for fault in faults if fault.by_hand}
    if len(left) == len(faults):
        return
    for fault in faults:
        if not fault.by_hand:
            made.apply(rows[fault.row]["remedy"])
    rows = examine(int("fail" in left.values()), *made.flags, **made.settings)
    assert wrong(rows, made) == left


def wrong(rows: Rows, made: Scene) -> dict[str, str]:
    """What `check` found."""
    return {row: level for row, level in levels(rows).items() if made.also.get(row) != level}
