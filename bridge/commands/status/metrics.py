"""What a running bridge reports over HTTP: its metrics and its readiness, as figures for people.

Guarantees: asks only where BRIDGE_HTTP_HOST and BRIDGE_HTTP_PORT say, for a few seconds at most. Whatever answers
there, the worst is a reason why there are no figures.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from bridge.expiration import MISSING
from bridge.settings import Settings
from bridge.telemetry.lag import Buckets
from bridge.telemetry.metrics import EXACT, NOT_EXACT

PATIENCE = 2.0
"""Seconds for the answers."""
LAG = "bridge_lag_seconds"
CLAIMED, PUBLISHED, RETRIED = "claimed_expirations_total", "published_messages_total", "retried_messages_total"
GAPS, GAP_OPEN = "gaps_total", "gap_open"
MISSED, RECOVERED, AMBIGUOUS = "missed_notifications_total", "recovered_expirations_total", "ambiguous_entries_total"
UNMEASURED = "unmeasured_gaps_total"
VALUES, FIELDS, LOST_FIELDS = "published_values_total", "claimed_fields_total", "ambiguous_fields_total"
"""Not needed: a bridge of an older version has none, or none of fields where it bridges none."""
OUTCOMES = (EXACT, NOT_EXACT, *MISSING)
LEASE_HELD, CANARY_AGE, IN_FLIGHT = "lease_held", "canary_age_seconds", "in_flight_messages"
SCAN_PROGRESS, SCAN_KEYS, SCAN_SECONDS = "scan_progress_ratio", "scan_keys", "scan_duration_seconds"
NEEDED = {
    *(CLAIMED, f"{CLAIMED}.notification", f"{CLAIMED}.sweep", PUBLISHED, RETRIED, GAPS, GAP_OPEN),
    *(MISSED, RECOVERED, AMBIGUOUS, LEASE_HELD, CANARY_AGE, IN_FLIGHT, SCAN_PROGRESS, SCAN_KEYS, SCAN_SECONDS),
}
"""The names, as they are in `Figures.values`."""
_OF_SHARDS: Mapping[str, Callable[[Iterable[float]], float]] = {CANARY_AGE: max, SCAN_PROGRESS: min, SCAN_SECONDS: max}
"""What becomes one figure in another way than by adding up."""
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here; these are not to be asked


class Unanswered(Exception):
    """There are no figures; the message says why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the bridge reported at one moment. Counters are since its start."""

    url: str
    at: float
    """When: seconds on a monotonic clock."""
    version: str
    uptime: float | None
    """Seconds since its start; None where its system does not tell."""
    unready: Mapping[str, str]
    """Why it is not ready."""
    values: Mapping[str, float]
    """By the metric's name without `bridge_`; with a label, by its value behind a dot, too."""
    lags: Buckets
    doubt: str | None = None
    """Why values are not read, or not proven."""

    def rate(self, name: str, earlier: "Figures | None") -> float | None:
        """By how much a counter rose per second since `earlier`; without that, on average since the start."""
        if earlier is None:
            return self.values[name] / self.uptime if self.uptime else None
        return (self.values[name] - earlier.values[name]) / (self.at - earlier.at)

    def lags_since(self, earlier: "Figures") -> Buckets:
        """Those that came after `earlier`."""
        before = dict(earlier.lags)
        return [(bound, count - before.get(bound, 0)) for bound, count in self.lags]

    def follows(self, earlier: "Figures") -> bool:
        """Whether both are from the same process, so that they can be compared."""
        return self.at > earlier.at and all(
            self.values[name] >= value for name, value in earlier.values.items() if name.endswith("_total")
        )


async def ask(settings: Settings) -> Figures:
    """Ask the bridge. Raises Unanswered."""
    if not settings.http_port:
        raise Unanswered("BRIDGE_HTTP_PORT is 0: it listens nowhere")
    host = _ANY_HOST.get(settings.http_host, settings.http_host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}"
    try:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(url, timeout=timeout) as session:
            async with session.get("/metrics") as answer:
                at, status, text = time.monotonic(), answer.status, await answer.text()
            async with session.get("/readyz") as answer:
                body = await answer.read()
            async with session.get("/status.json") as answer:
                page = await answer.read() if answer.status == HTTPStatus.OK else b"{}"
        if status != HTTPStatus.OK:
            raise Unanswered(f"{url}/metrics answers with status {status}: that is not the bridge")
        return replace(_read(url, at, text, body), doubt=_doubt(page))
    except TimeoutError as error:
        raise Unanswered(f"{url} does not answer within {PATIENCE:g} s") from error
    except aiohttp.ClientError as error:
        raise Unanswered(f"{url} cannot be reached from here") from error
    except (ValueError, KeyError, AttributeError) as error:  # of both parsers
        raise Unanswered(f"what {url} answers is not the bridge's") from error


def _doubt(page: bytes) -> str | None:
    """Of its status page; an older version's says nothing of it."""
    doubt = orjson.loads(page).get("values", {}).get("doubt")
    return doubt if isinstance(doubt, str) else None


def _read(url: str, at: float, text: str, readiness: bytes) -> Figures:
    values: dict[str, float] = {}
    lags: list[tuple[float, float]] = []
    version, started = "", None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("bridge_")
            if sample.name == f"{LAG}_bucket":
                lags.append((float(sample.labels["le"]), sample.value))
            elif sample.name == "bridge_build_info":
                version = sample.labels["version"]
            elif sample.name == "process_start_time_seconds":
                started = sample.value
            elif name != sample.name:
                values[name] = (
                    _OF_SHARDS.get(name, sum)((values[name], sample.value)) if name in values else sample.value
                )
                for label in sample.labels.values():
                    values[f"{name}.{label}"] = sample.value
    if not version or not lags or not values.keys() >= NEEDED:
        raise ValueError("these are the metrics of something else, or of another version")
    uptime = None if started is None else max(time.time() - started, 0.0)
    unready = orjson.loads(readiness).get("reasons", {})
    return Figures(url, at, version, uptime, unready, values, sorted(lags))
