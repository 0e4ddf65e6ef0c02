"""Makes `/status.json`: of the metrics, of the history, and of what is unmet."""

import time
from collections import defaultdict
from collections.abc import Mapping

from bridge import __version__
from bridge.settings import Settings
from bridge.telemetry.events import BROKER, CLUSTER, SHUTDOWN, STUCK, Telemetry
from bridge.telemetry.history import PastGap
from bridge.telemetry.page import shape
from bridge.telemetry.page.window import Span, Window

_OF_THE_PROCESS = (BROKER, CLUSTER, STUCK, SHUTDOWN)
"""The conditions that a standby has to meet as well."""


class Document:
    """Of one process."""

    def __init__(self, telemetry: Telemetry, window: Window, settings: Settings) -> None:
        self._telemetry = telemetry
        self._window = window
        self._settings = settings
        self._clock = telemetry.history.clock
        self._started = self._clock.monotonic()

    def status(self) -> shape.Status:
        """How it is now."""
        figures, reasons = _Figures(self._telemetry), self._telemetry.health.reasons
        shards = [self._shard(figures, number) for number in sorted(self._telemetry.history.places)]
        held = {shard["shard"] for shard in shards if shard["held"]}
        gaps = [_gap(gap, held) for gap in self._telemetry.history.gaps]
        dead = figures.total("dead_letters")
        standby = not held and bool(shards) and all(shard["holder"] for shard in shards)
        worries = _worries(sum(gap["open"] for gap in gaps), dead)
        state, summary = _state(reasons, worries, standby=standby)
        return {
            "schema_version": shape.VERSION,
            "now_ms": round(time.time() * 1000),
            "state": state,
            "summary": summary,
            "reasons": reasons,
            "bridge": {
                "instance": self._telemetry.instance,
                "version": __version__,
                "sink": str(self._settings.sink),
                "uptime_seconds": self._clock.monotonic() - self._started,
            },
            "window": self._of_window(),
            "ledger": figures.total("ledger_entries"),
            "outbox": {
                "expirations": figures.total("outbox_expirations"),
                "oldest_seconds": figures.of("outbox_oldest_age_seconds"),
                "in_flight": figures.total("in_flight_messages"),
            },
            "dead_letters": dead,
            "broker": {
                "connected": bool(figures.of("broker_up")),
                "losses": figures.total("broker_connections_lost_total"),
            },
            "gaps": {
                "total": figures.total("gaps_total"),
                "recovered": figures.total("recovered_expirations_total"),
                "ambiguous": figures.total("ambiguous_entries_total"),
                "missed": figures.total("missed_notifications_total"),
                "unmeasured": figures.total("unmeasured_gaps_total"),
                "last": gaps,
            },
            "takeovers": self._takeovers(figures),
            "values": self._values(figures, len(held)),
            "fields": self._fields(figures),
            "stuck": {"messages": figures.total("stuck_messages"), "channels": self._channels()},
            "shards": shards,
        }

    def _of_window(self) -> shape.Window:
        whole = self._window.whole()
        return {
            **_step(whole),
            "per_second": whole.per_second,
            "steps": [_step(step) for step in self._window.steps()],
        }

    def _takeovers(self, figures: "_Figures") -> shape.Takeovers:
        now, now_ms = self._clock.monotonic(), time.time() * 1000
        return {
            "hot": int(figures.of("takeovers_total", "hot")),
            "filled": int(figures.of("takeovers_total", "filled")),
            "cold": int(figures.of("takeovers_total", "cold")),
            "last": [
                {
                    "shard": one.shard,
                    "at_ms": round(now_ms - (now - one.at) * 1000),
                    "kind": one.kind,
                    "silent_ms": one.silent_ms,
                }
                for one in self._telemetry.history.takeovers
            ],
        }

    def _values(self, figures: "_Figures", held: int) -> shape.Values:
        def published(outcome: str) -> int:
            return int(figures.of("published_values_total", outcome))

        doubts = [place.doubt for place in self._telemetry.history.places.values()]
        return {
            "wanted": self._settings.values is not None,
            "held": figures.total("held_values"),
            "bytes": figures.total("value_bytes"),
            "limit_bytes": self._settings.values_limit * held,
            "captured": figures.total("captured_values_total"),
            "published": {
                "exact": published("exact"),
                "not_exact": published("not_exact"),
                "not_captured": published("not_captured"),
                "too_large": published("too_large"),
                "unsupported_type": published("unsupported_type"),
                "not_permitted": published("not_permitted"),
                "outbox_full": published("outbox_full"),
            },
            "doubt": next((doubt for doubt in doubts if doubt), None),
        }

    def _fields(self, figures: "_Figures") -> shape.Fields:
        def ambiguous(kind: str) -> int:
            return int(figures.of("ambiguous_fields_total", kind))

        deadlines = [place.field_deadline_ms for place in self._telemetry.history.places.values()]
        return {
            "bridged": bool(self._settings.fields),
            "hashes": figures.total("ledger_hashes"),
            "excluded": figures.total("excluded_hashes"),
            "next_deadline_ms": min((deadline for deadline in deadlines if deadline is not None), default=None),
            "claimed": {
                "notification": int(figures.of("claimed_fields_total", "notification")),
                "sweep": int(figures.of("claimed_fields_total", "sweep")),
            },
            "ambiguous": {
                "deleted": ambiguous("deleted"),
                "returned": ambiguous("returned"),
                "elsewhere": ambiguous("elsewhere"),
                "too_large": ambiguous("too_large"),
            },
            "missed": None,
        }

    def _channels(self) -> list[shape.Channel]:
        now = self._clock.monotonic()
        return [
            {"on": one.on, "seconds": now - one.since, "reason": one.reason}
            for one in self._telemetry.history.stuck.values()
        ]

    def _shard(self, figures: "_Figures", number: int) -> shape.Shard:
        place, label = self._telemetry.history.places[number], str(number)
        held = bool(figures.of("lease_held", label))
        return {
            "shard": number,
            "node": place.node,
            "held": held,
            "holder": self._telemetry.instance if held else place.holder,
            "standbys": place.standbys,
            "subscribed": bool(figures.of("subscription_up", label)),
            "ledger": int(figures.of("ledger_entries", label)),
            "outbox": int(figures.of("outbox_expirations", label)),
            "dead_letters": int(figures.of("dead_letters", label)),
            "canary_age_seconds": figures.of("canary_age_seconds", label),
            "canary_lag_seconds": figures.of("canary_lag_seconds", label),
            "standby_hints": int(figures.of("standby_hints", label)),
            "standby_hot": bool(figures.of("standby_hot", label)),
        }


class _Figures:
    """The samples of the registry, by name and by the value of their first label that tells them apart."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._found: dict[str, dict[str, float]] = defaultdict(dict)
        for family in telemetry.metrics.registry.collect():
            for sample in family.samples:
                label = sample.labels.get("shard") or next(iter(sample.labels.values()), "")
                self._found[sample.name][label] = sample.value

    def of(self, name: str, label: str = "") -> float:
        """One of them; 0 where there is none, or not yet."""
        return self._found[f"bridge_{name}"].get(label, 0.0)

    def total(self, name: str) -> int:
        """Of all labels."""
        return round(sum(self._found[f"bridge_{name}"].values()))


def _step(span: Span) -> shape.Step:
    return {"seconds": span.seconds, "published": span.published, "p50": span.p50, "p99": span.p99}


def _gap(gap: PastGap, held: set[int]) -> shape.Gap:
    return {
        "shard": gap.shard,
        "cause": gap.cause,
        "opened_ms": gap.opened_ms,
        "until_ms": gap.until_ms,
        "closed_ms": gap.closed_ms,
        "open": gap.closed_ms is None and gap.shard in held,
        "recovered": gap.recovered,
        "ambiguous": gap.ambiguous,
        "missed": gap.missed,
    }


def _worries(open_gaps: int, dead: int) -> list[str]:
    found = []
    if open_gaps:
        found.append("a gap is being reconciled" if open_gaps == 1 else f"{open_gaps} gaps are being reconciled")
    if dead:
        found.append("there is a dead letter" if dead == 1 else f"there are {dead:,} dead letters")
    return found


def _state(reasons: Mapping[str, str], worries: list[str], *, standby: bool) -> tuple[shape.State, str]:
    if standby:
        lacks = [reason for condition, reason in reasons.items() if condition in _OF_THE_PROCESS]
        if not lacks:
            return "standby", "Standing by: another bridge is at work, and this one takes over when that ends."
        return "unready", f"Standing by, but not fit to take over: {'; '.join(lacks)}."
    if reasons:
        return "unready", f"Not ready: {'; '.join(reasons.values())}."
    if worries:
        return "attention", f"Ready, but {' and '.join(worries)}."
    return "ready", "Ready: notifications flow, and the broker takes what expires."
