"""Each rule of `bridge/redis/PROTOCOL.md`, taken out of the source: what one would have written without it.

A mutation is a substitution of text in a copy of `bridge/`; text that is not there exactly once is an error. The
simulation has to find what goes wrong. `python -m tests.simulation.mutations [rule …]` looks for the first seed that
does, and notes it in `found.json`, of which `make docs` makes the table in README.md.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.simulation.mutations import claiming, fielding, recording, takeover, valuing
from tests.simulation.mutations.mended import MENDED
from tests.simulation.mutations.prepared import Simulate, prepared
from tests.simulation.mutations.storing import STORING
from tests.support.servers import ROOT

MOST_SEEDS = 1000
"""Within which each has to be found."""

FOUND = Path(__file__).with_name("found.json")
RULES = {**recording.RULES, **claiming.RULES, **takeover.RULES, **valuing.RULES, **fielding.RULES}
"""Those of the protocol."""
ALL = {**RULES, **STORING, **MENDED}


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


def find(simulate: Simulate, rule: str, first: int = 0, seeds: int = MOST_SEEDS) -> tuple[int, str] | None:
    """The first seed, from `first` on, that finds that the rule is missing, and the sentence that is contradicted.

    None: it is none of so many seeds.
    """
    with without(rule) as place:
        done = simulate(place, "--from", str(first), "--seeds", str(seeds), "--stop", "--workers", "1")
    said = re.search(r"^seed (\d+) .*?\}\): (.*)$", done.stdout, re.MULTILINE)
    if said is None:
        if done.returncode:
            raise RuntimeError(done.stdout)
        return None
    return int(said[1]), said[2].partition(":")[0]


@contextmanager
def without(rule: str) -> Iterator[Path]:
    """A place where the rule is taken out of `bridge/`."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as name:
        place = Path(name)
        changed = {ROOT / "bridge" / file for file, _, _ in ALL[rule]}
        _linked(ROOT / "bridge", place / "bridge", changed)
        (place / "tests").symlink_to(ROOT / "tests")
        mutate(rule, place / "bridge")
        yield place


def _linked(source: Path, target: Path, changed: Collection[Path]) -> None:
    """Make links to all that is in `source`, but copies of what will be changed, and of what is compiled beside it."""
    target.mkdir()
    for entry in source.iterdir():
        place = target / entry.name
        if entry.name == "__pycache__":
            shutil.copytree(entry, place)
        elif entry in changed:
            shutil.copy2(entry, place)
        elif any(entry in path.parents for path in changed):
            _linked(entry, place, changed)
        else:
            place.symlink_to(entry)


def known() -> dict[str, tuple[int, str]]:
    """By rule: the seed that finds that it is missing, and the sentence."""
    found = json.loads(FOUND.read_text("utf-8"))
    return {rule: (seed, sentence) for rule, (seed, sentence) in found.items()}


def table() -> str:
    """What is known, for README.md."""
    rows = ["| rule | seeds | the sentence that is contradicted |", "|---|---|---|"]
    rows += [f"| `{rule}` | {seed + 1} | {sentence.replace('_', ' ')} |" for rule, (seed, sentence) in known().items()]
    if missing := [f"`{rule}`" for rule in ALL if rule not in known()]:
        rows += ["", f"Found by none of 1,000 seeds, but held by other tests: {', '.join(missing)}."]
    return "\n".join(rows) + "\n"


def main(rules: Sequence[str]) -> int:
    """Look for all of them, or those that are named, and note it. The exit status: 1 where one is not found."""
    missing = 0
    with prepared() as simulate:
        for rule in rules or ALL:
            found = find(simulate, rule)
            missing += found is None
            sys.stdout.write(f"{rule}: {found}\n")
            if found and simulate(ROOT, "--seed", str(found[0])).returncode:
                sys.stdout.write("That seed breaks a promise with the rule as well: it says nothing.\n")
                missing += 1
                continue
            sys.stdout.flush()
            noted: dict[str, object] = {**known(), rule: found} if found else dict(known())
            noted = {rule: noted[rule] for rule in ALL if rule in noted}
            FOUND.write_text(json.dumps(noted, indent=1) + "\n", "utf-8")
    return bool(missing)
