"""The dashboard, as Grafana's own SDK reads it; its queries and the alerts', as a parser of PromQL does."""

import json

import promql_parser
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.deployed import DEPLOY, parsed


def lost(written: object, read: object, at: str = "dashboard") -> list[str]:
    """Where what was read differs from what was written; what was added as a default does not count."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [path for key in written for path in lost(written[key], read.get(key), f"{at}.{key}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [path for i, one in enumerate(written) for path in lost(one, read[i], f"{at}[{i}]")]
    return [] if written == read else [at]


def test_grafanas_sdk_knows_all_that_the_dashboard_says() -> None:
    written = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())

    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))

    assert lost(written, read) == []


def test_every_query_is_promql() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [rule["expr"] for group in parsed(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]]

    for query in asked + rules:
        promql_parser.parse(query.replace("$__rate_interval", "5m"))  # ValueError where it is none
