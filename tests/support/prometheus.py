"""A Prometheus that scrapes bridges, and judges them by the alerts of `deploy/`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from bridge.commands.embedded import Server
from tests.support.deployed import found
from tests.support.servers import ROOT

ALERTS = ROOT / "deploy" / "alerts.yaml"
HTTP_SECONDS = 10.0


class Prometheus(Server):
    """Scrapes the bridges on these ports every second, as one job, and evaluates the alerts as often."""

    scheme = "http"
    start_seconds = 30.0

    def __init__(self, ports: Sequence[int], job: str = "bridge") -> None:
        super().__init__("prometheus")
        self._targets = [f"127.0.0.1:{port}" for port in ports]
        self._job = job

    @classmethod
    def program(cls) -> Path:
        """See `Server`."""
        return found("prometheus", get="run `make setup`, or Debian: apt install prometheus")

    def command(self) -> Sequence[str]:
        """See `Process`."""
        file = self.directory / "prometheus.yml"
        scrape = {"job_name": self._job, "static_configs": [{"targets": self._targets}]}
        pace = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        file.write_text(yaml.safe_dump({"global": pace, "rule_files": [str(ALERTS)], "scrape_configs": [scrape]}))
        own = [f"--config.file={file}", f"--storage.tsdb.path={self.directory / 'data'}", "--log.level=warn"]
        return [str(self.program()), *own, f"--web.listen-address=127.0.0.1:{self.port}"]

    def answers(self) -> bool:
        """See `Server`."""
        return b"200" in self._ask(b"GET /-/ready HTTP/1.0\r\n\r\n", 16)

    def samples(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What a PromQL expression yields now: labels and value of each."""
        found = self._get("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def alerts(self) -> dict[str, str]:
        """Alert → `inactive`, `pending` or `firing`. Raises where one of them cannot be evaluated."""
        rules = [rule for group in self._get("rules")["groups"] for rule in group["rules"]]
        wrong = {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"}
        if wrong:
            raise ValueError(f"alerts that cannot be evaluated: {wrong}")
        return {rule["name"]: rule["state"] for rule in rules if rule["health"] == "ok"}

    def _get(self, what: str, **parameters: str) -> Any:  # noqa: ANN401 - each answer has a shape of its own
        url = f"{self.url}/api/v1/{what}?{urlencode(parameters)}"
        with urlopen(url, timeout=HTTP_SECONDS) as answer:  # noqa: S310 - http, to ourselves
            return json.load(answer)["data"]
