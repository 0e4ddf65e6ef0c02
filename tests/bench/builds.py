"""Which bridge is measured: that of this tree, or that of an older commit beside it, in turn.

An older one runs from a work tree of its own, with a virtual environment of its own, both in `.cache`.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.servers import ROOT

KEPT: Final = ROOT / ".cache" / "against"


@dataclass(frozen=True)
class Build:
    """What a bridge is started from."""

    name: str
    """The commit; empty for this tree."""
    python: Path
    root: Path
    """Where the package `bridge` lies."""


THIS: Final = Build("", Path(sys.executable), ROOT)


@dataclass
class Turn:
    """One measurement."""

    build: Build
    bridges: int = 0
    """How many have been started. Where there was none, the build does not matter."""


_TURN: ContextVar[Turn] = ContextVar("turn", default=Turn(THIS))  # noqa: B039 - outside of turns nothing counts


@contextmanager
def measuring(build: Build) -> Iterator[Turn]:
    """All bridges that are made meanwhile are of that build."""
    turn = Turn(build)
    token = _TURN.set(turn)
    try:
        yield turn
    finally:
        _TURN.reset(token)


def build_to_start() -> Build:
    """That of the bridge that is about to be made."""
    turn = _TURN.get()
    turn.bridges += 1
    return turn.build


def of_commit(commit: str) -> Build:
    """The build of a commit, made if it is not there. Raises CalledProcessError if it cannot be."""
    name = _run("git", "-C", str(ROOT), "rev-parse", "--short=12", "--verify", f"{commit}^{{commit}}").strip()
    root, environment = KEPT / name / "tree", KEPT / name / "venv"
    python, done = environment / "bin" / "python", KEPT / name / "installed"
    if not done.exists():
        _run("git", "-C", str(ROOT), "worktree", "prune")
        if not root.exists():
            _run("git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(root), name)
        wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment))
        _run(sys.executable, "-m", "pip", "--python", str(python), "--quiet", "install", *wanted)
        done.touch()
    return Build(commit, python, root)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
