"""What happens with Redis's replication backlog, in one shard of the ledger: see `shard.py`."""

from typing import Any

from bridge.telemetry.labelled import Labelled


class BacklogTelemetry(Labelled):
    """A part of `ShardTelemetry`."""

    _log: Any

    def gap_filled(self, cause: str, span_ms: int, filled: int, excess: int, took: float) -> None:
        """What was missed is read from the replication backlog. Of the `filled` expirations `excess` are deletions."""
        self._filled.inc(filled)
        self._excess.inc(excess)
        self._log.info("gap.filled", cause=cause, span_ms=span_ms, filled=filled, excess=excess, took_seconds=took)

    def gap_not_filled(self, reason: str) -> None:
        """The replication backlog does not show what was missed: the gap opens, as without it."""
        self._log.warning("gap.not_filled", reason=reason)

    def backlog_refused(self, reason: str) -> None:
        """Redis keeps no replication backlog, and is not asked for one."""
        self._log.warning("backlog.refused", reason=reason)
