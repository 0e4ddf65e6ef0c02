"""A small batch of seeds, the same every time; `make simulate SEEDS=…` runs others.

In processes of their own, because the order of sets has to be the same in each.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutations.search import RULES, found_after, mutate
from tests.simulation.validators import VALIDATORS, WHILE_IT_RUNS
from tests.support.servers import ROOT

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(900)]

SEEDS = 999 if os.environ.get("CI") == "true" else 100


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow(60)
def test_no_seed_breaks_a_promise() -> None:
    done = simulate("--seeds", str(SEEDS), "--from", "1")  # seed 0: see the list in README.md

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("seed", ["3", "29"])
def test_a_seed_is_one_run(seed: str) -> None:
    first, second = simulate("--seed", seed, "--trace"), simulate("--seed", seed, "--trace")

    assert len(first.stdout) > 10_000
    assert first.stdout == second.stdout


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_can_still_be_taken_out_of_the_source(rule: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bridge", tmp_path / "bridge")

    mutate(rule, tmp_path / "bridge")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["due_entries_stay", "wait_for_the_mark", "settle_when_acked"])
def test_what_goes_wrong_without_a_rule_is_found(rule: str) -> None:
    assert found_after(rule, seeds=50) is not None


def test_every_sentence_that_is_judged_is_one_of_the_guarantees() -> None:
    page = (ROOT / "deploy" / "docs" / "guarantees.md").read_text("utf-8")

    judged = {*(validator.__name__ for validator in VALIDATORS), *WHILE_IT_RUNS}
    assert judged == set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page)) & judged


TRACES = sorted((Path(__file__).parent / "traces").glob("*.json"))


@pytest.mark.parametrize("trace", TRACES, ids=[trace.stem for trace in TRACES])
def test_a_run_that_once_broke_a_promise_keeps_it(trace: Path) -> None:
    done = simulate("--replay", str(trace))

    assert done.returncode == 0, done.stdout
