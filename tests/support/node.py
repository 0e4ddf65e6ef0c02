"""Scripts for Node, with the packages that `.ci/shipped-tools` provides."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.deployed import found
from tests.support.servers import ROOT

PACKAGES = ROOT / ".cache" / "tools" / "node"


def node(script: str, *arguments: str, given: str = "") -> str:
    """What a script, an ECMAScript module, prints; `given` is its standard input.

    Raises CalledProcessError, with what it printed, where it fails. Skips where there is no Node; fails in CI.
    """
    program = found("node", get="Debian: apt install nodejs npm")
    if not (PACKAGES / "node_modules").exists():
        missing = "NOT CHECKED: there are no packages for Node (.ci/shipped-tools fetches them, with npm)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    command: list[str | Path] = [program, "--input-type=module", "--eval", script, "--", *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGES, input=given).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout}{error.stderr}")
        raise
