"""The Helm chart: valid in every combination of its switches, and true to the settings that it is given."""

import json
import math
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from bridge.limits import Limits
from bridge.settings import SECRETS, variable
from tests.support.chart import (
    HELM,
    OPENSHIFT,
    Values,
    all_combinations,
    environment_of,
    only,
    pod_of,
    rendered,
)
from tests.support.deployed import CHART, Document, judged, parsed

CUSTOM = {"PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose schemas no validator here has."""


def refusal(values: Values, directory: Path) -> str:
    """What the chart says of values that it refuses."""
    with pytest.raises(subprocess.CalledProcessError) as raised:
        rendered(values, directory)
    return str(raised.value.stderr)


def egress(documents: list[Document]) -> list[int]:
    """The ports that the bridge may connect to, without those of DNS."""
    [rule] = only(documents, "NetworkPolicy")["spec"]["egress"]
    return [port["port"] for port in rule["ports"] if port["port"] != 53]


def test_helm_finds_no_fault_in_the_chart() -> None:
    said = judged("helm", "lint", "--strict", str(CHART), get=HELM)

    assert "0 chart(s) failed" in said


@pytest.mark.parametrize("platform", [(), OPENSHIFT], ids=["kubernetes", "openshift"])
def test_every_combination_of_switches_renders_to_what_kubernetes_knows(
    platform: tuple[str, ...], tmp_path: Path
) -> None:
    seen = set()
    for combination, documents in all_combinations(tmp_path, *platform).values():
        kinds = {document["kind"] for document in documents}
        pod = pod_of(documents)
        container = pod["containers"][0]

        assert ("ServiceAccount" in kinds) == combination["account"]
        assert ("NetworkPolicy" in kinds) == combination["policy"]
        assert ("PodMonitor" in kinds) == combination["monitor"]
        assert ("PrometheusRule" in kinds) == combination["rule"]
        assert ("ConfigMap" in kinds) == combination["dashboard"]
        assert ("livenessProbe" in container) == ("ports" in container) == combination["http"]
        assert len(pod.get("volumes", [])) == combination["secret"] + combination["extras"]
        assert len(container.get("volumeMounts", [])) == len(pod.get("volumes", []))
        assert ("runAsUser" in pod["securityContext"]) == (platform != OPENSHIFT)
        for document in documents:
            text = json.dumps(document, sort_keys=True).replace(document["metadata"]["name"], "name")
            if document["kind"] not in CUSTOM and text not in seen:
                kubernetes_validate.validate(document, "1.31", strict=True)
            seen.add(text)


def test_what_is_installed_for_prometheus_and_grafana_is_what_deploy_has(tmp_path: Path) -> None:
    given = {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboard")}

    documents = rendered(given, tmp_path)

    rules = only(documents, "PrometheusRule")
    assert rules["spec"] == parsed(CHART.parents[1] / "alerts.yaml")
    assert rules["apiVersion"] == "monitoring.coreos.com/v1"
    [dashboard] = only(documents, "ConfigMap")["data"].values()
    assert json.loads(dashboard) == json.loads((CHART.parents[1] / "grafana" / "dashboard.json").read_text())
    monitor = only(documents, "PodMonitor")["spec"]
    deployment = only(documents, "Deployment")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert monitor["podMetricsEndpoints"][0]["port"] == pod_of(documents)["containers"][0]["ports"][0]["name"]


@pytest.mark.parametrize(
    ("given", "annotations"),
    [
        ({}, {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}),
        ({"env": {"BRIDGE_HTTP_PORT": 9000}}, {"prometheus.io/scrape": "true", "prometheus.io/port": "9000"}),
        ({"env": {"BRIDGE_HTTP_PORT": 0}}, None),
        ({"podMonitor": {"enabled": True}}, None),
        ({"scrapeAnnotations": False, "podAnnotations": {"a": "b"}}, {"a": "b"}),
    ],
)
def test_pods_are_scraped_where_the_settings_serve_metrics(
    given: Values, annotations: dict[str, str] | None, tmp_path: Path
) -> None:
    template = only(rendered(given, tmp_path), "Deployment")["spec"]["template"]

    assert template["metadata"].get("annotations") == annotations


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, [4222, 6379]),
        ({"REDIS_URL": "rediss://cache.example:6380/2", "NATS_URL": "nats://a,tls://b:4223"}, [4222, 4223, 6380]),
        ({"REDIS_URL": "redis+sentinel://a,b:26380/main/0"}, [4222, 6379, 26379, 26380]),
        ({"REDIS_URL": "redis+cluster://a:7000,[::1]:7001"}, [4222, 7000, 7001]),
        ({"REDIS_URL": "unix:///run/redis.sock", "SINK": "stdout"}, []),
        ({"SINK": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "a:9094, b"}, [6379, 9092, 9094]),
        ({"SINK": "kafka"}, [6379, 9092]),
        ({"REDIS_URL": None, "NATS_URL": None}, [4222, 6379]),
    ],
)
def test_the_network_policy_lets_the_bridge_reach_the_servers_of_its_settings(
    settings: Values, ports: list[int], tmp_path: Path
) -> None:
    env = {f"BRIDGE_{name}": value for name, value in settings.items()}

    assert egress(rendered({"env": env}, tmp_path)) == ports
    more = rendered({"env": env, "networkPolicy": {"egressPorts": [6379, 443]}}, tmp_path)
    assert egress(more) == sorted({*ports, 443, 6379})


def test_the_network_policy_lets_nobody_in_where_nothing_is_served(tmp_path: Path) -> None:
    documents = rendered({"env": {"BRIDGE_HTTP_PORT": 0}}, tmp_path)

    assert only(documents, "NetworkPolicy")["spec"]["ingress"] == []


def test_the_chart_hands_numbers_on_as_they_were_written(tmp_path: Path) -> None:
    written = {"BRIDGE_OUTBOX_LIMIT": 2_000_000, "BRIDGE_SCAN_INTERVAL": 12.5, "BRIDGE_NATS_PROVISION": False}

    found = environment_of(rendered({"env": written}, tmp_path))

    assert {name: found[name] for name in written} == {name: json.dumps(value) for name, value in written.items()}


@pytest.mark.parametrize("seconds", ["10", 12.5, 120])
def test_the_chart_leaves_the_time_to_drain_that_is_set(seconds: str | float, tmp_path: Path) -> None:
    grace = pod_of(rendered({"env": {"BRIDGE_SHUTDOWN_TIMEOUT": seconds}}, tmp_path))["terminationGracePeriodSeconds"]

    assert grace == math.ceil(float(seconds)) + 20 > float(seconds) + 2 * Limits().close


@pytest.mark.parametrize("name", sorted(name for name in SECRETS if not name.endswith("_url")))
def test_a_secret_among_the_plain_values_is_refused(name: str, tmp_path: Path) -> None:
    said = refusal({"env": {variable(name): "hunter2"}}, tmp_path)

    assert variable(name) in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("BRIDGE_REDIS_URL", "redis://:hunter2@redis:6379"),
        ("BRIDGE_REDIS_URL", "redis+sentinel://user:hunter2@a,b/main/0"),
        ("BRIDGE_NATS_URL", "nats://a,nats://hunter2@b"),
    ],
)
def test_a_url_with_a_secret_among_the_plain_values_is_refused(name: str, url: str, tmp_path: Path) -> None:
    assert name in refusal({"env": {name: url}}, tmp_path)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"secretFiles": {"BRIDGE_REDIS_PASSWORD_FILE": "password"}}, "secretFiles needs secretName"),
        ({"env": {"BRIDGE_HTTP_PORT": 0}, "podMonitor": {"enabled": True}}, "podMonitor.enabled needs the metrics"),
        ({"replica": 1}, "replica"),
    ],
)
def test_values_that_contradict_each_other_are_refused(given: Values, why: str, tmp_path: Path) -> None:
    assert why in refusal(given, tmp_path)


def test_every_value_is_described_and_every_described_value_exists() -> None:
    def compared(schema: Document, values: Document, place: str) -> None:
        assert schema["properties"].keys() - {"global"} == values.keys(), place
        for name, about in schema["properties"].items():
            assert about["description"].strip().endswith((".", "`")), f"{place}.{name}"
            if "properties" in about:
                compared(about, values[name], f"{place}.{name}")

    compared(json.loads((CHART / "values.schema.json").read_text()), parsed(CHART / "values.yaml"), "")
