"""What watches the bridge fits it: dashboard, alerts, and a runbook that answers each alert and each logged error."""

import ast
import json
import re
import subprocess
import tomllib

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from bridge.telemetry.metrics import Metrics
from tests.support.deployed import DEPLOY, Document, found, judged, parsed
from tests.support.servers import ROOT

PROMTOOL = "run `make setup`, or Debian: apt install prometheus"
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()


def collected() -> list[Metric]:
    """All families, those of fields included."""
    found = Metrics()
    found.fields()
    return list(found.registry.collect())


def metrics() -> set[str]:
    """Every name that /metrics shows, those of histograms' parts included."""
    samples = set()
    for family in collected():
        samples |= {sample.name for sample in family.samples}
        samples.add(f"{family.name}_total" if family.type == "counter" else family.name)  # with labels: no sample yet
    return samples


def named_metrics(expression: str) -> set[str]:
    """The bridge's metrics, those of its process included, in a PromQL expression."""
    return set(re.findall(r"\b(?:bridge|process)_\w+", expression))


def errors() -> set[str]:
    """Every event that is logged as an error, wherever in the code."""
    return {
        str(argument.value)
        for path in (ROOT / "bridge").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "error"
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(argument.value))
    }


def alerts() -> list[Document]:
    """The rules of alerts.yaml."""
    return [rule for group in parsed(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]]


def home() -> str:
    """Where the project is."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return str(urls["Homepage"])


def sections(part: str) -> dict[str, str]:
    """Heading → text of one part of the runbook."""
    text = RUNBOOK.partition(f"\n## {part}\n")[2].partition("\n## ")[0]
    found = re.split(r"^### (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def expressions(dashboard: Document) -> list[str]:
    """What its panels ask."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_of_the_dashboard_exists_and_none_of_the_bridges_is_left_out() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    shown = list(map(named_metrics, expressions(dashboard)))

    assert all(shown)
    assert set().union(*shown) <= metrics()
    assert named_metrics(dashboard["templating"]["list"][1]["query"]["query"]) <= metrics()
    families = {f"{family.name}_total" if family.type == "counter" else family.name for family in collected()}
    kept = {name for name in families if name.startswith("bridge_")}
    assert not {name for name in kept if not any(found.startswith(name) for found in set().union(*shown))}


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_is_of_metrics_that_exist_and_leads_to_the_runbook(rule: Document) -> None:
    name = rule["alert"]

    assert named_metrics(rule["expr"])
    assert named_metrics(rule["expr"]) <= metrics()
    assert rule["annotations"]["runbook_url"] == f"{home()}/blob/main/deploy/RUNBOOK.md#{name.lower()}"
    assert name in sections("Alerts")


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    tests = [
        test for suite in parsed(DEPLOY / "alerts_test.yaml")["tests"] for test in suite.get("alert_rule_test", [])
    ]

    assert {test["alertname"] for test in tests if test["exp_alerts"]} == {rule["alert"] for rule in alerts()}


def test_the_outboxs_alert_comes_before_its_limit() -> None:
    [expression] = [rule["expr"] for rule in alerts() if rule["alert"] == "ExpiryBridgeOutboxFilling"]

    assert int(re.findall(r"> (\d+)", expression)[0]) == Settings().outbox_limit * 0.8


def test_the_runbook_has_a_heading_for_each_alert_and_each_error_and_no_others() -> None:
    assert [*sections("Alerts")] == [rule["alert"] for rule in alerts()]
    assert {heading.strip("`") for heading in sections("Errors in the log")} == errors()
    for heading, text in (sections("Alerts") | sections("Errors in the log")).items():
        assert re.findall(r"^\*\*(.+?)\*\*:", text, re.MULTILINE) == ["Meaning", "Look at", "Do"], heading


def test_the_runbooks_links_lead_somewhere() -> None:
    for page in DEPLOY.glob("*.md"):
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
            path = (page.parent / target) if target else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", name).lower().replace(" ", "-") for name in headings}, anchor


def test_compose_shows_prometheus_the_bridges_and_grafana_the_dashboard() -> None:
    services = parsed(ROOT / "compose.yaml")["services"]
    bridges = {name for name, service in services.items() if service.get("image", "").endswith("/expiry-bridge")}
    scraped = parsed(DEPLOY / "prometheus.yml")["scrape_configs"]
    mounts = dict(mount.split(":")[:2] for name in ("prometheus", "grafana") for mount in services[name]["volumes"])

    assert {target for job in scraped for target in job["static_configs"][0]["targets"]} == {
        f"{name}:{Settings().http_port}" for name in bridges
    }
    assert all((ROOT / source).exists() for source in mounts)
    assert (
        mounts["./deploy/grafana/dashboard.json"]
        == services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    )
    [provider] = parsed(DEPLOY / "grafana" / "dashboards" / "expiry-bridge.yaml")["providers"]
    assert mounts["./deploy/grafana/dashboard.json"].startswith(f"{provider['options']['path']}/")
    [source] = parsed(DEPLOY / "grafana" / "datasources" / "prometheus.yaml")["datasources"]
    assert services["prometheus"]["ports"] == [f"127.0.0.1:{source['url'].rpartition(':')[2]}:9090"]


@pytest.mark.parametrize(
    ("command", "file"),
    [("check rules", "alerts.yaml"), ("test rules", "alerts_test.yaml"), ("check config", "prometheus.yml")],
)
def test_promtool_sees_the_alerts_do_what_they_should(command: str, file: str) -> None:
    assert "SUCCESS" in judged("promtool", *command.split(), str(DEPLOY / file), get=PROMTOOL)


def test_promtool_finds_no_fault_with_the_metrics() -> None:
    telemetry = Telemetry()
    telemetry.shard().node_named("127.0.0.1:6379")

    promtool = found("promtool", get=PROMTOOL)
    text = generate_latest(telemetry.metrics.registry)
    judgement = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)

    assert (judgement.returncode, judgement.stdout, judgement.stderr) == (0, b"", b"")
