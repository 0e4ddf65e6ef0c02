"""What happens to fields of hashes, in one shard. Their metrics are there only where fields are bridged."""

from bridge.expiration import Via
from bridge.telemetry.backlog import BacklogTelemetry
from bridge.telemetry.field_metrics import AMBIGUOUS, FieldMetrics
from bridge.telemetry.history import Place
from bridge.telemetry.metrics import Metrics


class FieldTelemetry(BacklogTelemetry):
    """A part of `ShardTelemetry`."""

    _place: Place

    def __init__(self, shard: str, metrics: Metrics) -> None:
        super().__init__(shard, metrics)
        self._field_metrics: FieldMetrics | None = None

    def fields_bridged(self) -> None:
        """Fields of hashes are bridged."""
        if self._field_metrics is None:
            self._field_metrics = self._metrics.fields()
            self.field_ledger_seen(0)

    def field_ledger_seen(self, hashes: int, excluded: int = 0, deadline_ms: int | None = None) -> None:
        """How many hashes are in the field ledger, how many have too many fields, and the first deadline of a field."""
        if self._field_metrics is not None:
            self._place.field_deadline_ms = deadline_ms
            self._field_metrics.hashes.labels(shard=self._shard).set(hashes)
            self._field_metrics.excluded.labels(shard=self._shard).set(excluded)

    def fields_claimed(self, by_notification: int, by_sweep: int) -> None:
        """Fields have expired."""
        if self._field_metrics is not None:
            self._field_metrics.claimed.labels(via=Via.NOTIFICATION).inc(by_notification)
            self._field_metrics.claimed.labels(via=Via.SWEEP).inc(by_sweep)

    def fields_ambiguous(self, deleted: int, returned: int, elsewhere: int, too_large: int) -> None:
        """Fields may have expired, and are not announced."""
        if self._field_metrics is not None:
            for kind, count in zip(AMBIGUOUS, (deleted, returned, elsewhere, too_large), strict=True):
                self._field_metrics.ambiguous.labels(kind=kind).inc(count)

    def hashes_excluded(self, count: int, most: int) -> None:
        """Hashes have more fields than are read: none of theirs is announced. A dead letter names each."""
        self._log.error("hashes.excluded", count=count, most=most)
