"""What the tools of those who will run it say of `deploy/`. Skipped, loudly, where a tool is not installed."""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from bridge.service import CLOSE_TIMEOUT
from tests.support.deployed import CHART, DEPLOY, UNIT, Document, judged, manifest
from tests.support.servers import ROOT

MANIFESTS = ("deployment", "networkpolicy", "poddisruptionbudget")
VALIDATOR = "run `make setup`"
HELM = "go install helm.sh/helm/v3/cmd/helm@latest"
EXPOSURE = 15
"""Tenths of `systemd-analyze security`'s scale, which calls less than 20 OK, and an unprotected service 96 UNSAFE."""


def helm(*values: str, only: str | None = None) -> list[Document]:
    """What the chart renders to with these values, of one of its templates if `only` that matters."""
    shown = ["--show-only", f"templates/{only}.yaml"] if only else []
    given = [word for value in values for word in ("--set", value)]
    # A helm that was built without a version of Kubernetes takes an ancient one for granted.
    arguments = ["template", "expiry-bridge", str(CHART), "--kube-version", "1.31.0", *shown, *given]
    text = judged("helm", *arguments, get=HELM)
    return [document for document in yaml.safe_load_all(text) if document]


def compose() -> Sequence[str]:
    """The Compose that works here. A `docker` client may lack the plugin: then `docker compose` is no command."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode == 0:
        return "docker", "compose"
    return ("docker-compose",)


def test_compose_understands_its_file() -> None:
    arguments = ["--profile", "kafka", "--profile", "watch", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"]
    judged(*compose(), *arguments, get="apt install docker-compose, or Docker's Compose plugin")


def test_helm_finds_no_fault_in_the_chart() -> None:
    said = judged("helm", "lint", "--strict", str(CHART), get=HELM)

    assert "0 chart(s) failed" in said


def test_the_chart_hands_numbers_on_as_they_were_written(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    written = {"BRIDGE_OUTBOX_LIMIT": 2_000_000, "BRIDGE_SCAN_INTERVAL": 12.5, "BRIDGE_NATS_PROVISION": False}
    values.write_text(json.dumps({"env": written}))

    said = judged("helm", "template", "x", str(CHART), "--values", str(values), "--kube-version", "1.31.0", get=HELM)

    [deployment] = [document for document in yaml.safe_load_all(said) if document["kind"] == "Deployment"]
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    found = {entry["name"]: entry["value"] for entry in environment}
    assert {name: found[name] for name in written} == {name: json.dumps(value) for name, value in written.items()}


def test_the_chart_renders_to_the_plain_manifests() -> None:
    secrets = {"BRIDGE_NATS_CREDS_FILE": "nats.creds", "BRIDGE_REDIS_PASSWORD_FILE": "redis-password"}
    given = [f"secretFiles.{name}={value}" for name, value in secrets.items()]

    rendered = {document["kind"]: document for document in helm("secretName=expiry-bridge", *given)}

    plain = [manifest(name) for name in ("deployment", "poddisruptionbudget", "networkpolicy")]
    assert rendered.keys() == {document["kind"] for document in plain}
    for document in plain:
        labels = rendered[document["kind"]]["metadata"]["labels"]
        for own in ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"):
            del labels[own]
        assert rendered[document["kind"]] == document


@pytest.mark.parametrize("seconds", ["10", "12.5", "120"])
def test_the_chart_leaves_the_time_to_drain_that_is_set(seconds: str) -> None:
    [deployment] = helm(f"env.BRIDGE_SHUTDOWN_TIMEOUT={seconds}", only="deployment")

    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == math.ceil(float(seconds)) + 20 > float(seconds) + 2 * CLOSE_TIMEOUT


def test_the_chart_refuses_files_of_no_secret() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        helm("secretFiles.BRIDGE_REDIS_PASSWORD_FILE=password")
    assert "secretFiles needs secretName" in raised.value.stderr


@pytest.mark.parametrize("version", ["1.27", "1.35"])
def test_kubernetes_knows_every_field_of_the_manifests(version: str) -> None:
    files = [str(DEPLOY / "kubernetes" / f"{name}.yaml") for name in MANIFESTS]

    judged("kubernetes-validate", "--strict", "-k", version, *files, get=VALIDATOR, provided=True)


def test_kubernetes_knows_every_field_of_what_the_chart_renders(tmp_path: Path) -> None:
    rendered = helm(
        "networkPolicy.enabled=true", f"image.digest=sha256:{0:064}", "podLabels.team=a", "nodeSelector.disk=ssd"
    )
    for number, document in enumerate(rendered):
        file = tmp_path / f"{number}.yaml"
        file.write_text(str(document))  # a document of plain values is YAML as Python writes it
        judged("kubernetes-validate", "--strict", str(file), get=VALIDATOR, provided=True)

    assert {document["kind"] for document in rendered} == {manifest(name)["kind"] for name in MANIFESTS}


def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "expiry-bridge.service"
    unit.write_text(UNIT.replace("/opt/expiry-bridge/bin/expiry-bridge", shutil.which("true") or ""))
    how = "Debian: apt install systemd"

    judged("systemd-analyze", "verify", str(unit), get=how)
    judged("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit), get=how)
