"""The metrics. Names are part of what dashboards and alerts rely on; labels are bounded (no keys, no subjects)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.claimed = Counter(
            "bridge_claimed_expirations",
            "Expirations claimed, by how they were learned of.",
            ["via"],
            registry=self.registry,
        )
        self.lag = Histogram(
            "bridge_lag_seconds",
            "From a key's deadline to the broker's ack.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.published = self._counter("published_messages", "Messages that the broker acked.")
        self.retried = self._counter("retried_messages", "Messages sent again, under the same ids.")
        self.rejected = self._counter("rejected_messages", "Messages that the broker will never take: dead letters.")
        self.recovered = self._counter(
            "recovered_expirations", "Expirations of a gap, claimed though their notification was missed."
        )
        self.missed = self._counter(
            "missed_notifications", "Expirations of the node, in all databases, whose notification was not handled."
        )
        self.ambiguous = self._counter(
            "ambiguous_entries", "Entries found refreshed, deleted or gone early after a gap: they may have expired."
        )
        self.gaps = self._counter("gaps", "Gaps: time spans in which notifications may have been missed.")
        self.epochs_ended = self._counter("epochs_ended", "Losses of the subscription or the lease.")
        self.scanned = self._counter("scanned_keys", "Keys read by scans.")
        self.scan_seconds = self._gauge("scan_duration_seconds", "How long the last scan took.")
        self.gap_open = self._gauge("gap_open", "1 while a gap is not reconciled yet.")
        self.ledger_size = self._gauge("ledger_entries", "Keys in the deadline ledger.")
        self.outbox_depth = self._gauge("outbox_expirations", "Expirations claimed and not yet acked.")
        self.in_flight = self._gauge("in_flight_messages", "Messages being published.")
        self.dead_letters = self._gauge("dead_letters", "Dead letters kept in Redis.")
        self.subscription_up = self._gauge("subscription_up", "1 while notifications are proven to flow.")
        self.canary_heard = self._gauge(
            "canary_heard_timestamp_seconds",
            "When the last expiration of the bridge's own key was heard of, Unix time.",
        )
        self.canary_lag = self._gauge("canary_lag_seconds", "From that key's deadline until it was heard of.")
        self.lease_held = self._gauge("lease_held", "1 while this bridge holds the lease.")
        self.broker_up = self._gauge("broker_up", "1 while the sink is connected.")

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(f"bridge_{name}", help_text, registry=self.registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"bridge_{name}", help_text, registry=self.registry)
