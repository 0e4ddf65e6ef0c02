"""The metrics of fields of hashes. They are there only where fields are bridged."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.expiration import Via

AMBIGUOUS = ("deleted", "returned", "elsewhere", "too_large")


class FieldMetrics:
    """Those of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.claimed = Counter(
            "bridge_claimed_fields",
            "Expirations of hash fields claimed, by how they were learned of.",
            ["via"],
            registry=registry,
        )
        for via in Via:
            self.claimed.labels(via=via)
        self.ambiguous = Counter(
            "bridge_ambiguous_fields",
            "Hash fields that may have expired and were not announced: deleted, or set again, just then; of slots that"
            " are elsewhere; of a hash that has got too large.",
            ["kind"],
            registry=registry,
        )
        for kind in AMBIGUOUS:
            self.ambiguous.labels(kind=kind)
        self.hashes = Gauge(
            "bridge_ledger_hashes", "Hashes in the field ledger; 0 without its lease.", ["shard"], registry=registry
        )
        self.excluded = Gauge(
            "bridge_excluded_hashes",
            "Hashes with too many fields, none of which is announced; 0 without the lease.",
            ["shard"],
            registry=registry,
        )
