"""The plain manifests: what the chart renders to, what kustomize makes of them, and what judges find."""

from pathlib import Path

import pytest
import yaml

from tests.support.chart import HELM, rendered
from tests.support.deployed import DEPLOY, Document, judged, manifest

PLAIN = sorted(path.stem for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
VALIDATOR = "run `make setup`"
DELIBERATE = (
    "pod-probes-identical",  # a standby is never ready by /readyz: deployment.yaml
    "deployment-has-host-podantiaffinity",  # topologySpreadConstraints do the same, and let one node do if need be
)


def built() -> list[Document]:
    """What kustomize makes of the directory."""
    text = judged("kustomize", "build", str(DEPLOY / "kubernetes"), get=HELM)
    return list(yaml.safe_load_all(text))


def by_kind(documents: list[Document]) -> dict[str, Document]:
    """Kind → the document."""
    return {document["kind"]: document for document in documents}


def test_kustomize_makes_of_the_manifests_what_they_are() -> None:
    assert by_kind(built()) == by_kind([manifest(name) for name in PLAIN])


def test_the_chart_renders_to_the_plain_manifests(tmp_path: Path) -> None:
    secrets = {"BRIDGE_NATS_CREDS_FILE": "nats.creds", "BRIDGE_REDIS_PASSWORD_FILE": "redis-password"}

    found = by_kind(rendered({"secretName": "expiry-bridge", "secretFiles": secrets}, tmp_path))

    for document in found.values():
        for own in ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"):
            del document["metadata"]["labels"][own]
    assert found == by_kind([manifest(name) for name in PLAIN])


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.35"])
def test_kubernetes_knows_every_field_of_the_manifests(version: str) -> None:
    files = [str(DEPLOY / "kubernetes" / f"{name}.yaml") for name in PLAIN]

    judged("kubernetes-validate", "--strict", "-k", version, *files, get=VALIDATOR)


def test_kube_score_finds_no_fault_in_the_manifests() -> None:
    files = [str(DEPLOY / "kubernetes" / f"{name}.yaml") for name in PLAIN]

    ignored = [word for test in DELIBERATE for word in ("--ignore-test", test)]

    # No limit of the CPU either: values.yaml.
    judged("kube-score", "score", "--ignore-container-cpu-limit", *ignored, *files, get=HELM)
