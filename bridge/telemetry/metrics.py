"""The metrics. Names are part of what dashboards and alerts rely on; labels are bounded (no keys, no subjects).

The help texts are the reference: the README's table is made of them (`reference.py`).
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge import __version__
from bridge.endings import Ending
from bridge.expiration import MISSING, Via
from bridge.telemetry import logs
from bridge.telemetry.field_metrics import FieldMetrics
from bridge.telemetry.lag import LagHistogram
from bridge.telemetry.level import Level

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

EXACT, NOT_EXACT = "exact", "not_exact"
"""Outcomes of a value that is there."""

_Kind = TypeVar("_Kind", Counter, Gauge)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_shards: list[Counter | Gauge] = []
        self._fields: FieldMetrics | None = None
        # What is found and delivered.
        self.claimed = self._counter(
            "claimed_expirations", "Expirations claimed, by how they were learned of.", via=list(Via)
        )
        self.published = self._counter("published_messages", "Messages that the broker acked.")
        self.lag = LagHistogram("bridge_lag_seconds", "From a key's deadline to the broker's ack.", LAG_BUCKETS)
        self.registry.register(self.lag)
        self.retried = self._counter("retried_messages", "Messages sent again, under the same ids.")
        self.rejected = self._counter("rejected_messages", "Messages that the broker will never take: dead letters.")
        self.dead_letters = self._by_shard(Gauge, "dead_letters", "Dead letters kept in Redis; 0 without the lease.")
        self.in_flight = Level(self._gauge("in_flight_messages", "Messages being published."))
        self.stuck = self._gauge(
            "stuck_messages",
            "Messages that the broker has not taken for more than ten seconds, while it may take others.",
        )
        self.stuck_age = self._gauge(
            "stuck_oldest_age_seconds", "Since when some subject or topic has not taken a message; 0 if none is stuck."
        )
        self.outbox_depth = self._by_shard(
            Gauge, "outbox_expirations", "Expirations claimed and not yet acked; 0 without the lease."
        )
        self.outbox_age = self._gauge(
            "outbox_oldest_age_seconds",
            "Since the oldest entry of the outbox was claimed; 0 while this bridge has nothing to deliver.",
        )
        self.ledger_size = self._by_shard(Gauge, "ledger_entries", "Keys in the deadline ledger; 0 without its lease.")
        # What is missed.
        self.gaps = self._by_shard(Counter, "gaps", "Gaps: time spans in which notifications may have been missed.")
        self.gap_open = self._by_shard(Gauge, "gap_open", "1 while a gap is not reconciled yet; 0 without the lease.")
        self.missed = self._by_shard(
            Counter,
            "missed_notifications",
            "Expirations of the node, in all databases, whose notification was not handled.",
        )
        self.unmeasured = self._by_shard(
            Counter,
            "unmeasured_gaps",
            "Gaps for which it is unknown what was missed: their record has `missed: null`.",
        )
        self.recovered = self._by_shard(
            Counter, "recovered_expirations", "Expirations of a gap, claimed although their notification was missed."
        )
        self.ambiguous = self._by_shard(
            Counter,
            "ambiguous_entries",
            "Entries found refreshed, deleted or gone early after a gap: they may have expired.",
        )
        self.forgotten = self._by_shard(
            Counter,
            "forgotten_entries",
            "Entries that left the ledger unannounced: a bridge with other BRIDGE_KEYS had recorded them.",
        )
        self.filled = self._by_shard(
            Counter, "filled_expirations", "Expirations of a gap, taken from Redis's replication backlog."
        )
        self.excess = self._by_shard(
            Counter,
            "excess_expirations",
            "Of the expirations taken from the replication backlog, those that were deletions: announced, not expired.",
        )
        # Values.
        self.captured = self._by_shard(Counter, "captured_values", "Values of keys read before their deadlines.")
        self.held_values = self._by_shard(
            Gauge, "held_values", "Values of keys that are about to expire, in Redis; 0 without the lease."
        )
        self.value_bytes = self._by_shard(
            Gauge,
            "value_bytes",
            "Bytes of values in Redis: of keys that are about to expire, and in the outbox; 0 without the lease.",
        )
        self.published_values = self._counter(
            "published_values",
            "Of the acked messages, those of keys that BRIDGE_VALUES matches: with the value, proven to be the last one"
            " or not, or without it.",
            outcome=[EXACT, NOT_EXACT, *MISSING],
        )
        # What has to be there.
        self.subscription_up = Gauge(
            "bridge_subscription_up",
            "1 while notifications are proven to flow.",
            ["node", "shard"],
            registry=self.registry,
        )
        self.epochs_ended = self._counter(
            "epochs_ended", "Ends of a subscription, by the kind of reason.", reason=list(Ending)
        )
        self.reliefs_failed = self._counter(
            "reliefs_failed", "Sessions that could not be opened, to replace one whose login ends or was changed."
        )
        self.canary_age = self._by_shard(
            Gauge,
            "canary_age_seconds",
            "Since an expiration of the bridge's own key was heard, or the lease was acquired; 0 on a standby.",
        )
        self.canary_heard = self._by_shard(
            Gauge,
            "canary_heard_timestamp_seconds",
            "When the last expiration of the bridge's own key was heard, Unix time.",
        )
        self.canary_lag = self._by_shard(Gauge, "canary_lag_seconds", "From that key's deadline until it was heard.")
        self.lease_held = self._by_shard(
            Gauge, "lease_held", "1 while this bridge holds the lease, and Redis has answered within five seconds."
        )
        self.takeovers = self._counter(
            "takeovers",
            "Leases taken: hot, without a gap; filled, with one that the replication backlog has filled; or cold.",
            kind=["hot", "filled", "cold"],
        )
        self.takeover_silence = self._by_shard(
            Gauge,
            "takeover_silence_seconds",
            "From the last sign of life of a holder that died until this bridge last took its lease.",
        )
        self.standby_hot = self._by_shard(
            Gauge, "standby_hot", "1 while this bridge stands by, and could take over without a gap; else 0."
        )
        self.standby_hints = self._by_shard(
            Gauge, "standby_hints", "Notifications that a standby keeps, to go on from where the holder is; else 0."
        )
        self.broker_up = self._gauge("broker_up", "1 while the sink is connected.")
        self.broker_lost = self._counter("broker_connections_lost", "Losses of the connection to the broker.")
        # The scan.
        self.scanned = self._counter("scanned_keys", "Keys read by scans.")
        self.scan_keys = self._by_shard(Gauge, "scan_keys", "Keys read by the scan under way, or by the last one.")
        self.scan_progress = self._by_shard(
            Gauge,
            "scan_progress_ratio",
            "Share of the keyspace that the scan under way has gone through; 1 while none is.",
        )
        self.scan_seconds = self._by_shard(Gauge, "scan_duration_seconds", "How long the last scan took.")
        # The process.
        self.registry.register(
            _Count(
                "dropped_log_lines", "Log lines dropped, because what reads them was too slow or gone.", logs.dropped
            )
        )
        Info("bridge_build", "What runs here.", registry=self.registry).info({"version": __version__})
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, help_text: str, **labels: list[Via] | list[Ending] | list[str]) -> Counter:
        """A counter, at 0 for each value of its label from the start, so that a first rise is seen as one."""
        counter = Counter(f"bridge_{name}", help_text, list(labels), registry=self.registry)
        for label, values in labels.items():
            for value in values:
                counter.labels(**{label: value})
        return counter

    def _by_shard(self, kind: type[_Kind], name: str, help_text: str) -> _Kind:
        metric = kind(f"bridge_{name}", help_text, ["shard"], registry=self.registry)
        self._of_shards.append(metric)
        return metric

    def fields(self) -> FieldMetrics:
        """Those of fields of hashes, from now on."""
        self._fields = self._fields or FieldMetrics(self.registry)
        return self._fields

    def forget_shard(self, shard: str) -> None:
        """The shard no longer exists."""
        for metric in self._of_shards:
            metric.remove(shard)
        self.subscription_up.remove_by_labels({"shard": shard})
        if self._fields is not None:
            self._fields.hashes.remove_by_labels({"shard": shard})
            self._fields.excluded.remove_by_labels({"shard": shard})

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"bridge_{name}", help_text, registry=self.registry)


class _Count(Collector):
    """A counter that another part counts, and that is read on request."""

    def __init__(self, name: str, help_text: str, read: Callable[[], int]) -> None:
        self._name = f"bridge_{name}"
        self._help = help_text
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        yield CounterMetricFamily(self._name, self._help, value=self._read())
