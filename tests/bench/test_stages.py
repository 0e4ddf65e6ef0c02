"""The stages of a profile: each finds its samples, in the source as it is now."""

import ast
import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.bench.profile import profiled
from tests.bench.stages import OTHER, STAGES
from tests.support.servers import ROOT, NatsServer, RedisServer, require

SCALE: Final = 0.1
LARGE: Final = ("claim (hints, scripts)", "publish")
"""Stages of which there are samples in any run."""


def _frames() -> set[str]:
    """Every function of the bridge, as a sampler shows it, without lines."""
    found: set[str] = set()
    for file in (ROOT / "bridge").rglob("*.py"):
        found |= set(_functions(ast.parse(file.read_text()), "", file.relative_to(ROOT)))
    return found


def _functions(node: ast.AST, inside: str, file: Path) -> list[str]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}{child.name}"
            found += [f"{name} ({file.as_posix()}", *_functions(child, f"{name}.", file)]
    return found


def test_each_place_that_a_stage_names_is_in_the_source() -> None:
    frames = _frames()
    foreign = ("Client._", "nats/", "aiokafka/", "AIOKafka")
    for stage, rule in STAGES.items():
        names = [name for name in _alternatives(rule) if not name.replace("\\", "").startswith(foreign)]
        missing = [name for name in names if not any(re.search(name, frame) for frame in frames)]
        assert not missing, f"{stage}: {missing}"


def _alternatives(rule: str) -> list[str]:
    """The parts of a rule that each fit a frame: `a|b(c|d)e` → a, bce, bde."""
    parts = re.split(r"\|(?![^(]*\))", rule)
    found = []
    for part in parts:
        inner = re.search(r"\(([^)]*)\)", part)
        words = inner[1].split("|") if inner else [""]
        found += [part.replace(inner[0], word) if inner else part for word in words]
    return found


@pytest.mark.slow
async def test_a_profile_tells_the_stages_apart() -> None:
    require(RedisServer)
    require(NatsServer)
    try:
        costs = await profiled(SCALE)
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error).partition("\n")[0])  # only root may sample, where ptrace is not allowed
    assert list(costs) == [*STAGES, OTHER]
    assert [stage for stage in LARGE if not costs[stage]] == []
