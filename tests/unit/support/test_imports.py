"""What tests share lives in modules of its own: nothing imports from a module of tests."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.servers import ROOT


def of_test_modules(source: str) -> list[str]:
    """The imports of a source, wherever they stand in it, that are of a module of tests."""
    return [name for name in imported(source) if name.startswith("tests.") and ".test_" in name]


def imported(source: str) -> Iterator[str]:
    """The dotted names that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def test_nothing_imports_from_a_module_of_tests() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert ROOT / "tests" / "conftest.py" in files
    found = {str(file.relative_to(ROOT)): of_test_modules(file.read_text()) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.unit.test_x import run", ["tests.unit.test_x.run"]),
        ("from tests.unit import test_x", ["tests.unit.test_x"]),
        ("def late() -> None:\n    import tests.unit.test_x as x", ["tests.unit.test_x"]),
        ("from tests.support.servers import Bridge", []),
        ("from bridge.commands.check import test_message", []),
    ],
)
def test_an_import_from_a_module_of_tests_is_seen(source: str, found: list[str]) -> None:
    assert of_test_modules(source) == found
