"""What the tools of those who will run it say of `deploy/`. Skipped, loudly, where a tool is not installed."""

import shutil
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.unit.deployed import DEPLOY, judged
from tests.unit.test_deploy import CHART, UNIT, helm, manifest

MANIFESTS = ("deployment", "networkpolicy", "poddisruptionbudget")
EXPOSURE = 15
"""Tenths of `systemd-analyze security`'s scale, which calls less than 20 OK, and an unprotected service 96 UNSAFE."""


def test_compose_understands_its_file() -> None:
    arguments = ["--profile", "kafka", "--profile", "watch", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"]
    if shutil.which("docker-compose"):
        judged("docker-compose", *arguments, get="apt install docker-compose")
    else:
        judged("docker", "compose", *arguments, get="Docker with Compose")


def test_helm_finds_no_fault_in_the_chart() -> None:
    said = judged("helm", "lint", "--strict", str(CHART), get="go install helm.sh/helm/v3/cmd/helm@latest")

    assert "0 chart(s) failed" in said


@pytest.mark.parametrize("version", ["1.27", "1.35"])
def test_kubernetes_knows_every_field_of_the_manifests(version: str) -> None:
    files = [str(DEPLOY / "kubernetes" / f"{name}.yaml") for name in MANIFESTS]

    judged("kubernetes-validate", "--strict", "-k", version, *files, get="pip install kubernetes-validate")


def test_kubernetes_knows_every_field_of_what_the_chart_renders(tmp_path: Path) -> None:
    judged("kubernetes-validate", "--help", get="pip install kubernetes-validate")
    rendered = helm("networkPolicy.enabled=true", "image.digest=sha256:0", "podLabels.team=a", "nodeSelector.disk=ssd")
    for number, document in enumerate(rendered):
        file = tmp_path / f"{number}.yaml"
        file.write_text(str(document))  # a document of plain values is YAML as Python writes it
        judged("kubernetes-validate", "--strict", str(file), get="pip install kubernetes-validate")

    assert {document["kind"] for document in rendered} == {manifest(name)["kind"] for name in MANIFESTS}


def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "expiry-bridge.service"
    unit.write_text(UNIT.replace("/opt/expiry-bridge/bin/expiry-bridge", shutil.which("true") or ""))
    how = "Debian: apt install systemd"

    judged("systemd-analyze", "verify", str(unit), get=how)
    judged("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit), get=how)
