"""What the shards of one process have in common."""

from bridge.clock import Clock
from bridge.telemetry.history import History


class Common:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self.history = History(clock)
        self.leases = set[int]()
        """The shards whose leases it holds."""
        self._said = set[str]()

    def first(self, text: str) -> bool:
        """Whether this is asked for the first time: what is logged once."""
        is_new = text not in self._said
        self._said.add(text)
        return is_new
