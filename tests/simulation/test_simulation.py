"""A small batch of seeds, the same every time; `make simulate SEEDS=…` runs others.

In processes of another one, because the order of sets has to be the same in each.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.mutations.prepared import Simulate, prepared
from tests.simulation.mutations.search import RULES, find, known, without
from tests.simulation.validators import VALIDATORS, WHILE_IT_RUNS
from tests.support.servers import ROOT

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(1400)]

SEEDS = 1000 if os.environ.get("CI") == "true" else 100


@pytest.fixture(scope="module")
def simulate() -> Iterator[Simulate]:
    with prepared() as begin:
        yield begin


@pytest.mark.slow(60)
def test_no_seed_breaks_a_promise(simulate: Simulate) -> None:
    done = simulate(ROOT, "--seeds", str(SEEDS))

    assert done.returncode == 0, done.stdout
    assert f"{SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("seed", ["3", "29"])
def test_a_seed_is_one_run(simulate: Simulate, seed: str) -> None:
    first, second = simulate(ROOT, "--seed", seed, "--trace"), simulate(ROOT, "--seed", seed, "--trace")

    assert len(first.stdout) > 10_000
    assert first.stdout == second.stdout


def test_what_ran_before_it_does_not_matter(simulate: Simulate) -> None:
    # 702 ends many connections at once. As long as those lay in a set, their order was that of their addresses.
    alone = simulate(ROOT, "--seed", "702")
    behind_others = simulate(ROOT, "--from", "700", "--seeds", "3", "--each", "--workers", "1")

    assert alone.stdout
    assert alone.stdout in behind_others.stdout


@pytest.mark.slow
@pytest.mark.parametrize("rule", known())
def test_what_goes_wrong_without_a_rule_is_found(simulate: Simulate, rule: str) -> None:
    seed, _ = known()[rule]

    # At once by that seed, unless the service has changed since: then by another one, which takes longer.
    assert find(simulate, rule, first=seed, seeds=300) is not None, f"python -m tests.simulation.mutations {rule}"


@pytest.mark.slow
def test_what_goes_wrong_is_made_small_and_repeated(simulate: Simulate, tmp_path: Path) -> None:
    rule, smallest = "claims_store_place", tmp_path / "smallest.json"
    seed, sentence = known()[rule]
    with without(rule) as place:
        first = simulate(place, "--seed", str(seed))
        simulate(place, "--seed", str(seed), "--shrink", "--save", str(smallest))
        second, third = (simulate(place, "--replay", str(smallest), "--trace") for _ in range(2))

    assert sentence in first.stdout
    assert sentence in second.stdout
    assert second.stdout == third.stdout
    assert _steps(second.stdout) < _steps(first.stdout) * 2 / 3


def _steps(said: str) -> int:
    found = re.search(r"(\d+) steps", said)
    assert found is not None
    return int(found[1])


def test_the_protocol_names_each_rule_that_can_be_taken_out() -> None:
    page = (ROOT / "bridge" / "redis" / "PROTOCOL.md").read_text("utf-8")
    _, _, rows = page.partition("## What each rule prevents")
    named = [name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]

    assert sorted(named) == sorted(RULES)


def test_every_sentence_that_is_judged_is_one_of_the_guarantees() -> None:
    page = (ROOT / "deploy" / "docs" / "guarantees.md").read_text("utf-8")

    judged = {*(validator.__name__ for validator in VALIDATORS), *WHILE_IT_RUNS}
    assert judged == set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page)) & judged
