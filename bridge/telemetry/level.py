"""A gauge that is set far more often than it is read: several times for each batch, and once a scrape.

prometheus-client's own `set` looks at labels and takes a lock each time; here it is an assignment. For one thread.
"""

from prometheus_client import Gauge


class Level:
    """The value of a gauge."""

    __slots__ = ("_value",)

    def __init__(self, gauge: Gauge) -> None:
        """`gauge` asks for it when it is read itself."""
        self._value = 0.0
        gauge.set_function(self._get)

    def set(self, value: float) -> None:
        """From now on it is this."""
        self._value = value

    def _get(self) -> float:
        return self._value
