"""The metrics of one shard, bound to its label once: each event then costs no look-up."""

from bridge.telemetry.level import Level
from bridge.telemetry.metrics import Metrics


class Labelled:
    """What `ShardTelemetry` counts with."""

    def __init__(self, shard: str, metrics: Metrics) -> None:
        """`shard`: the value of the label."""
        self._shard = shard
        self._metrics = metrics
        self._by_notification = metrics.claimed.labels(via="notification")
        self._by_sweep = metrics.claimed.labels(via="sweep")
        self._gaps = metrics.gaps.labels(shard=shard)
        self._gap_open = metrics.gap_open.labels(shard=shard)
        self._recovered = metrics.recovered.labels(shard=shard)
        self._ambiguous = metrics.ambiguous.labels(shard=shard)
        self._missed = metrics.missed.labels(shard=shard)
        self._unmeasured = metrics.unmeasured.labels(shard=shard)
        self._forgotten = metrics.forgotten.labels(shard=shard)
        self._taken_hot = metrics.takeovers.labels(kind="hot")
        self._taken_cold = metrics.takeovers.labels(kind="cold")
        self._taken_filled = metrics.takeovers.labels(kind="filled")
        self._filled = metrics.filled.labels(shard=shard)
        self._excess = metrics.excess.labels(shard=shard)
        self._takeover_silence = metrics.takeover_silence.labels(shard=shard)
        self._standby_hints = metrics.standby_hints.labels(shard=shard)
        self._standby_hot = metrics.standby_hot.labels(shard=shard)
        self._captured = metrics.captured.labels(shard=shard)
        self._held_values = Level(metrics.held_values.labels(shard=shard))
        self._value_bytes = Level(metrics.value_bytes.labels(shard=shard))
        self._canary_lag = metrics.canary_lag.labels(shard=shard)
        self._canary_heard = metrics.canary_heard.labels(shard=shard)
        self._ledger_size = Level(metrics.ledger_size.labels(shard=shard))
        self._outbox_depth = Level(metrics.outbox_depth.labels(shard=shard))
        self._dead_letters = Level(metrics.dead_letters.labels(shard=shard))
        self._scan_keys = metrics.scan_keys.labels(shard=shard)
        self._scan_progress = metrics.scan_progress.labels(shard=shard)
        self._scan_seconds = metrics.scan_seconds.labels(shard=shard)
