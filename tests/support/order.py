"""In which order tests run: the slow ones first, so that none is left alone at the end."""

from collections.abc import Sequence
from typing import Final

import pytest

SLOW: Final = ("slow", "chaos", "cluster")
"""Marks of tests that take more than a few seconds."""
USUAL_SECONDS: Final = 10.0
"""Of a slow test whose mark does not say how many."""


def seconds(item: pytest.Item) -> float:
    """About how long a test takes; 0: not long."""
    marks = [mark for name in SLOW if (mark := item.get_closest_marker(name))]
    return max((mark.args[0] if mark.args else USUAL_SECONDS for mark in marks), default=0.0)


def slow_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """All of them. xdist's `worksteal` cuts the list into a part for each worker: each part begins with slow ones."""
    slow = sorted((item for item in items if seconds(item)), key=seconds, reverse=True)
    quick = [item for item in items if not seconds(item)]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        share = slow[worker::workers]
        rest = max((len(items) - len(ordered)) // (workers - worker) - len(share), 0)
        ordered += [*share, *quick[:rest]]
        del quick[:rest]
    return [*ordered, *quick]
