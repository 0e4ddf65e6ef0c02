"""What happens with the values of keys, in one shard of the ledger: see `shard.py`."""

from collections.abc import Callable
from typing import Any

from bridge.telemetry.history import Place
from bridge.telemetry.labelled import Labelled


class ValuesTelemetry(Labelled):
    """A part of `ShardTelemetry`."""

    _log: Any
    _first: Callable[[str], bool]
    _place: Place
    _values_left_out = False

    def values_captured(self, count: int, *, full: bool, provable: bool) -> None:
        """Values are left out, since those in Redis have BRIDGE_VALUES_OUTBOX_BYTES. Logged when that begins.

        `provable`: Redis says when they are written.
        """
        if provable:
            self._place.doubt = None
        self._captured.inc(count)
        if full and not self._values_left_out:
            self._log.warning("values.omitted", metric="bridge_published_values_total")
        self._values_left_out = full

    def values_seen(self, held: int, size: int) -> None:
        """A script said how many values are held for keys that will expire, and how many bytes there are in all."""
        self._held_values.set(held)
        self._value_bytes.set(size)

    def values_doubted(self, reason: str) -> None:
        """Values cannot be read, or not be proven to be the last ones. Logged once for each reason."""
        self._place.doubt = reason
        if self._first(f"values.doubted: {reason}"):
            self._log.warning("values.doubted", reason=reason)
