"""Where time is a dependency, nothing reads a clock of its own: see `bridge/clock.py`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge

ROOT = Path(bridge.__file__).parent
ROOMS = [
    *(f"redis/{room}" for room in ("protocol", "wire", "ledger", "backlog", "epoch", "source")),
    *("delivery", "sinks"),
]
CLOCKS = {"time", "datetime", "sched", "zoneinfo"}
"""Modules that read the machine's clock."""
LOOPS = {"call_at", "call_later", "timeout", "timeout_at", "wait_for"}
"""What reads the event loop's, whichever object has it: `Clock.timeout` is called `….clock.timeout`."""


def violations(source: str) -> Iterator[str]:
    """What reads a clock in a module, by line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and (names := {alias.name.partition(".")[0] for alias in node.names} & CLOCKS):
            yield f"{node.lineno}: import {', '.join(names)}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {*CLOCKS, "asyncio"}:
            yield f"{node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Call) and (what := _reads(node)):
            yield f"{node.lineno}: {what}"


def _reads(call: ast.Call) -> str | None:
    function = call.func
    if not isinstance(function, ast.Attribute):
        return None
    owner, name = ast.unparse(function.value), function.attr
    if owner.endswith("clock"):
        return None
    first = ast.unparse(call.args[0]) if call.args else None
    if (name == "sleep" and first == "0") or (name == "timeout" and first == "None"):
        return None  # the event loop's next turn; a wait without a limit
    if name == "sleep" or name in LOOPS or (name == "time" and "loop" in owner):
        return ast.unparse(function)
    if owner == "asyncio" and name == "wait" and any(keyword.arg == "timeout" for keyword in call.keywords):
        return "asyncio.wait with a timeout"
    return None


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_reads_no_clock_but_the_one_it_is_given(room: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{violation}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for violation in violations(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import monotonic",
        "from asyncio import sleep",
        "await asyncio.sleep(1)",
        "async with asyncio.timeout(1): pass",
        "await asyncio.wait_for(task, 1)",
        "await asyncio.wait(tasks, timeout=1)",
        "asyncio.get_running_loop().time()",
        "loop.call_later(1, print)",
    ],
)
def test_what_reads_a_clock_is_found(line: str) -> None:
    assert list(violations(f"async def f():\n    {line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.sleep(0)",
        "await self._clock.sleep(1)",
        "async with clock.timeout(1): pass",
        "await asyncio.wait(tasks)",
        "async with asyncio.timeout(None): pass",
        "await loop.create_connection(None)",
    ],
)
def test_what_reads_none_is_permitted(line: str) -> None:
    assert not list(violations(f"async def f():\n    {line}\n"))
