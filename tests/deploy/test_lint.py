"""What linters say of everything that is no Python: scripts, the Dockerfile, YAML, the workflows. And of dead code."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.deployed import DEPLOY, judged
from tests.support.servers import ROOT

SETUP = "run `make setup`"
YAML = {
    "extends": "default",
    "rules": {
        "braces": {"max-spaces-inside": 1},
        "comments": {"min-spaces-from-content": 1},
        "document-start": "disable",
        "line-length": {"max": 160},
        "truthy": {"check-keys": False},  # `on:` of a workflow
    },
}


def without_templates() -> list[Path]:
    """All YAML that is YAML before helm has seen it."""
    found = [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml"), *ROOT.glob("*.yaml"), *ROOT.glob(".github/**/*.yml")]
    return sorted(path for path in found if "templates" not in path.parts)


@pytest.fixture
def tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that actionlint finds shellcheck."""
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")


def test_shellcheck_finds_no_fault_in_the_scripts() -> None:
    scripts = sorted([*(path for path in (ROOT / ".ci").iterdir() if path.is_file()), *DEPLOY.rglob("*.sh")])

    judged("shellcheck", *map(str, scripts), get=SETUP)


def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    judged("hadolint", str(DEPLOY / "Dockerfile"), get=SETUP)


def test_yamllint_finds_no_fault() -> None:
    judged("yamllint", "--strict", "-d", json.dumps(YAML), *map(str, without_templates()), get=SETUP)


@pytest.mark.usefixtures("tools_on_path")
def test_actionlint_finds_no_fault_in_the_workflows() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

    assert workflows
    judged("actionlint", *map(str, workflows), get=".ci/shipped-tools builds it, with Go")


def test_vulture_finds_no_code_that_is_surely_dead() -> None:
    judged("vulture", "--min-confidence", "80", str(ROOT / "bridge"), get=SETUP)
