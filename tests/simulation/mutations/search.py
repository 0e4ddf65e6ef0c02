"""Each rule of `bridge/redis/PROTOCOL.md`, taken out of the source: what one would have written without it.

A mutation is a substitution of text in a copy of `bridge/`; text that is not there exactly once is an error. The
simulation has to find what goes wrong. `python -m tests.simulation.mutations [rule …]` says after how many seeds.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.mutations import claiming, recording
from tests.support.servers import ROOT

MOST_SEEDS = 1000
"""Within which each has to be found."""

RULES = {**recording.RULES, **claiming.RULES}


class NotThereError(Exception):
    """The source has changed, and the mutation has not."""


def mutate(rule: str, source: Path) -> None:
    """Take the rule out of the copy of `bridge/` in `source`. Raises NotThereError."""
    for file, text, other in RULES[rule]:
        path = source / file
        found = path.read_text("utf-8")
        if found.count(text) != 1:
            raise NotThereError(f"{rule}: {file} has {found.count(text)} times {text!r}")
        path.write_text(found.replace(text, other), "utf-8")


def found_after(rule: str, seeds: int) -> tuple[int, str] | None:
    """How many seeds it takes to find that the rule is missing, and what is said then; None: more than `seeds`."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as name:
        place = Path(name)
        shutil.copytree(ROOT / "bridge", place / "bridge", ignore=shutil.ignore_patterns("__pycache__"))
        (place / "tests").symlink_to(ROOT / "tests")
        mutate(rule, place / "bridge")
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--stop"],
            cwd=place, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    said = re.search(r"^seed (\d+) .*?\}\): (.*)$", done.stdout, re.MULTILINE)
    if said is None:
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return None
    return int(said[1]) + 1, said[2].partition(":")[0]


def main(rules: Sequence[str]) -> int:
    """Look for all of them, or those that are named. The exit status: 1 where one is not found."""
    missing = 0
    sys.stdout.write("| rule | seeds | the sentence that is contradicted |\n|---|---|---|\n")
    for rule in rules or RULES:
        found = found_after(rule, MOST_SEEDS)
        missing += found is None
        seeds, sentence = found or (f"> {MOST_SEEDS}", "none")
        sys.stdout.write(f"| `{rule}` | {seeds} | {sentence.replace('_', ' ')} |\n")
        sys.stdout.flush()
    return bool(missing)
