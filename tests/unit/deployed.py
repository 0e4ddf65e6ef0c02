"""The files that tests of `deploy/` read, and the tools that judge them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import ROOT

DEPLOY = ROOT / "deploy"

Document = dict[str, Any]


def parsed(path: Path) -> Document:
    """A YAML file of one document."""
    document: Document = yaml.safe_load(path.read_text())
    return document


def judged(tool: str, *arguments: str, get: str) -> str:
    """What a tool prints, or a skip where it is not installed, which says how to `get` it.

    Raises CalledProcessError, with what it printed, where the tool finds fault.
    """
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"NOT CHECKED: {tool} is not installed ({get})")
    try:
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout}{error.stderr}")
        raise
