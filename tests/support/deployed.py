"""The files that tests of `deploy/` read, and the tools that judge them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import ROOT, TOOLS

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "expiry-bridge"
UNIT = (DEPLOY / "systemd" / "expiry-bridge.service").read_text()

Document = dict[str, Any]


def parsed(path: Path) -> Document:
    """A YAML file of one document."""
    document: Document = yaml.safe_load(path.read_text())
    return document


def manifest(name: str) -> Document:
    """One of the plain Kubernetes manifests."""
    return parsed(DEPLOY / "kubernetes" / f"{name}.yaml")


def found(tool: str, *, get: str) -> Path:
    """A tool, else a skip that says how to `get` it.

    In CI, none may be missing.
    """
    places = [str(TOOLS), f"{sys.prefix}/bin", os.environ.get("PATH", "")]
    program = shutil.which(tool, path=os.pathsep.join(places))
    if program is None:
        missing = f"NOT CHECKED: {tool} is not installed ({get})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return Path(program)


def judged(tool: str, *arguments: str, get: str) -> str:
    """What a tool prints; see `found`.

    Raises CalledProcessError, with what it printed, where the tool finds fault.
    """
    program = found(tool, get=get)
    try:
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout}{error.stderr}")
        raise
