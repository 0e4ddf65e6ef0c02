"""Slow tests are begun first, by each worker its share."""

import pytest

from tests.support.order import slow_first


class Named(pytest.Item):
    """A test that is never run."""

    def runtest(self) -> None:
        raise NotImplementedError


@pytest.fixture
def items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Three quick ones before three slow ones."""
    made: list[pytest.Item] = [Named.from_parent(request.session, name=f"quick{number}") for number in range(3)]
    for name, mark in (("slow", pytest.mark.slow), ("slowest", pytest.mark.slow(60)), ("chaos", pytest.mark.chaos)):
        item = Named.from_parent(request.session, name=name)
        item.add_marker(mark)
        made.append(item)
    return made


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, "slowest slow chaos quick0 quick1 quick2"),
        (2, "slowest chaos quick0 slow quick1 quick2"),
        (4, "slowest slow chaos quick0 quick1 quick2"),
        (9, "slowest slow chaos quick0 quick1 quick2"),
    ],
)
def test_each_worker_begins_with_its_share_of_the_slow_ones_the_slowest_first(
    items: list[pytest.Item], workers: int, expected: str
) -> None:
    assert [item.name for item in slow_first(items, workers)] == expected.split()
