"""What the demo says to type next can be typed."""

import sys
from pathlib import Path

import pytest

from bridge.commands.demo.story import NAME, program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where the shell looks for programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_what_was_called_by_its_path_is_named_by_that(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/expiry-bridge", "demo"])
    assert program() == ".venv/bin/expiry-bridge"
    (path / NAME).touch(0o755)
    assert program() == NAME


@pytest.mark.usefixtures("path")
def test_what_was_called_as_a_module_is_named_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bridge/__main__.py", "demo"])
    assert program() == NAME
