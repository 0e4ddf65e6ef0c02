"""The Helm chart, rendered: alone, or in all combinations of its switches at once."""

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.deployed import CHART, Document, judged

HELM: Final = ".ci/shipped-tools builds it, with Go"
KUBERNETES: Final = ("--kube-version", "1.31.0")
"""A helm that was built without a version of Kubernetes takes an ancient one for granted."""
OPENSHIFT: Final = ("--api-versions", "security.openshift.io/v1")

Values = dict[str, Any]

SWITCHES: Final[Mapping[str, tuple[Values, Values]]] = {
    "secret": ({}, {"secretName": "s", "secretFiles": {"BRIDGE_REDIS_PASSWORD_FILE": "redis-password"}}),
    "account": (
        {"serviceAccount": {"create": False}},
        {"serviceAccount": {"name": "reader", "annotations": {"role": "arn:aws:iam::1:role/x"}}},
    ),
    "policy": ({"networkPolicy": {"enabled": False}}, {"networkPolicy": {"enabled": True, "egressPorts": [9093]}}),
    "http": ({"env": {"BRIDGE_HTTP_PORT": 0}}, {"env": {"BRIDGE_HTTP_PORT": 9000}}),
    "monitor": ({}, {"podMonitor": {"enabled": True, "labels": {"release": "x"}}}),
    "rule": ({}, {"prometheusRule": {"enabled": True, "labels": {"release": "x"}}}),
    "dashboard": ({}, {"dashboard": {"enabled": True, "annotations": {"folder": "x"}}}),
    "extras": (
        {"scrapeAnnotations": False},
        {
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "extraArgs": ["--log-level", "debug"],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "a"},
            "priorityClassName": "high",
            "nodeSelector": {"disk": "ssd"},
            "affinity": {"podAntiAffinity": {}},
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
            ],
            "image": {"digest": f"sha256:{0:064}", "pullSecrets": [{"name": "registry"}]},
            "extra": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}}],
        },
    ),
}
"""What can be on or off, and the values of both."""


def rendered(values: Values, directory: Path, *arguments: str) -> list[Document]:
    """What the chart makes of these values, as a release named like itself. `directory` is for a file.

    Raises CalledProcessError where it refuses them.
    """
    file = directory / "values.json"
    file.write_text(json.dumps(values))
    return _template(CHART, *arguments, "--values", str(file))


def combinations() -> Iterator[dict[str, bool]]:
    """Every combination of the switches that the chart does not refuse: a PodMonitor needs metrics."""
    for chosen in itertools.product([False, True], repeat=len(SWITCHES)):
        combination = dict(zip(SWITCHES, chosen, strict=True))
        if combination["http"] or not combination["monitor"]:
            yield combination


def all_combinations(directory: Path, *arguments: str) -> dict[str, tuple[dict[str, bool], list[Document]]]:
    """Label → a combination and what it renders to.

    One helm renders them all: as subcharts of a chart, each under an alias of its own.
    """
    umbrella = directory / "umbrella"
    shutil.copytree(CHART, umbrella / "charts" / "expiry-bridge")
    labelled = {f"c{number}": combination for number, combination in enumerate(combinations())}
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    dependencies = [{"name": "expiry-bridge", "version": version, "alias": label} for label in labelled]
    chart = {"apiVersion": "v2", "name": "umbrella", "version": "0.0.0", "dependencies": dependencies}
    (umbrella / "Chart.yaml").write_text(json.dumps(chart))
    (umbrella / "values.yaml").write_text(json.dumps({label: _values(c) for label, c in labelled.items()}))
    found: dict[str, tuple[dict[str, bool], list[Document]]] = {label: (c, []) for label, c in labelled.items()}
    for document in _template(umbrella, *arguments):
        if document["metadata"]["name"] == "expiry-bridge-x":
            continue  # the extra one, the same of all
        found[document["metadata"]["labels"]["app.kubernetes.io/name"]][1].append(document)
    return found


def only(documents: list[Document], kind: str) -> Document:
    """The one of this kind. Raises ValueError where there is none, or another."""
    [document] = [document for document in documents if document["kind"] == kind]
    return document


def pod_of(documents: list[Document]) -> Document:
    """What the Deployment says of its pods."""
    spec: Document = only(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment_of(documents: list[Document]) -> dict[str, str]:
    """What the bridge finds in its environment, without what Kubernetes looks up."""
    return {entry["name"]: entry["value"] for entry in pod_of(documents)["containers"][0]["env"]}


def _values(combination: Mapping[str, bool]) -> Values:
    values: Values = {}
    for name, on in combination.items():
        values |= SWITCHES[name][on]
    return values


def _template(chart: Path, *arguments: str) -> list[Document]:
    text = judged("helm", "template", "expiry-bridge", str(chart), *KUBERNETES, *arguments, get=HELM)
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]
