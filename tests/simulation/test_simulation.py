"""A small batch of seeds, the same every time; `make simulate SEEDS=…` runs others.

In processes of their own, because the order of sets has to be the same in each.
"""

import os
import subprocess
import sys

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.unmeasured

SEEDS = 1000 if os.environ.get("CI") == "true" else 100


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(400)
def test_no_seed_breaks_a_promise() -> None:
    done = simulate("--seeds", str(SEEDS))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("seed", ["3", "29"])
def test_a_seed_is_one_run(seed: str) -> None:
    first, second = simulate("--seed", seed, "--trace"), simulate("--seed", seed, "--trace")

    assert len(first.stdout) > 10_000
    assert first.stdout == second.stdout
