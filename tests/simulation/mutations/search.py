"""Each rule of `bridge/redis/PROTOCOL.md`, taken out of the source: what one would have written without it.

A mutation is a substitution of text in a copy of `bridge/`; text that is not there exactly once is an error. The
simulation has to find what goes wrong. `python -m tests.simulation.mutations [rule …]` looks for the first seed that
does, and notes it in `found.json`, of which `make docs` makes the table in README.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.simulation.mutations import claiming, recording, takeover
from tests.simulation.mutations.mended import MENDED
from tests.support.servers import ROOT

MOST_SEEDS = 1000
"""Within which each has to be found."""

FOUND = Path(__file__).with_name("found.json")
RULES = {**recording.RULES, **claiming.RULES, **takeover.RULES}
"""Those of the protocol."""
ALL = {**RULES, **MENDED}


class NotThereError(Exception):
    """The source has changed, and the mutation has not."""


def mutate(rule: str, source: Path) -> None:
    """Take the rule out of the copy of `bridge/` in `source`. Raises NotThereError."""
    for file, text, other in ALL[rule]:
        path = source / file
        found = path.read_text("utf-8")
        if found.count(text) != 1:
            raise NotThereError(f"{rule}: {file} has {found.count(text)} times {text!r}")
        path.write_text(found.replace(text, other), "utf-8")


def find(rule: str, first: int = 0, seeds: int = MOST_SEEDS) -> tuple[int, str] | None:
    """The first seed, from `first` on, that finds that the rule is missing, and the sentence that is contradicted.

    None: it is none of so many seeds.
    """
    with without(rule) as place:
        done = simulate(place, "--from", str(first), "--seeds", str(seeds), "--stop", "--workers", "1")
    said = re.search(r"^seed (\d+) .*?\}\): (.*)$", done.stdout, re.MULTILINE)
    if said is None:
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return None
    return int(said[1]), said[2].partition(":")[0]


@contextmanager
def without(rule: str) -> Iterator[Path]:
    """A place where the rule is taken out of `bridge/`."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as name:
        place = Path(name)
        shutil.copytree(ROOT / "bridge", place / "bridge")  # compiled as it may be: what is not mutated stays so
        (place / "tests").symlink_to(ROOT / "tests")
        mutate(rule, place / "bridge")
        yield place


def simulate(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation there, in a process of its own: the order of sets has to be the same in each."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=place, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def known() -> dict[str, tuple[int, str]]:
    """By rule: the seed that finds that it is missing, and the sentence."""
    found = json.loads(FOUND.read_text("utf-8"))
    return {rule: (seed, sentence) for rule, (seed, sentence) in found.items()}


def table() -> str:
    """What is known, for README.md."""
    rows = ["| rule | seeds | the sentence that is contradicted |", "|---|---|---|"]
    rows += [f"| `{rule}` | {seed + 1} | {sentence.replace('_', ' ')} |" for rule, (seed, sentence) in known().items()]
    if missing := [f"`{rule}`" for rule in ALL if rule not in known()]:
        rows += ["", f"Looked for in vain in the first 127 seeds, and not behind them: {', '.join(missing)}."]
    return "\n".join(rows) + "\n"


def main(rules: Sequence[str]) -> int:
    """Look for all of them, or those that are named, and note it. The exit status: 1 where one is not found."""
    missing = 0
    for rule in rules or ALL:
        found = find(rule)
        missing += found is None
        sys.stdout.write(f"{rule}: {found}\n")
        sys.stdout.flush()
        noted: dict[str, object] = {**known(), rule: found} if found else dict(known())
        noted = {rule: noted[rule] for rule in ALL if rule in noted}
        FOUND.write_text(json.dumps(noted, indent=1) + "\n", "utf-8")
    return bool(missing)
