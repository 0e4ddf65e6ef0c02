"""The request to a source to end. The part that runs the source gives it once."""

import asyncio

from bridge.endings import Ending


class Stop:
    """See the module."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        """Set when it is given."""
        self._ending = Ending.SHUTDOWN

    def give(self, ending: Ending) -> None:
        """Ask the source to end, for that reason."""
        self._ending = ending
        self.event.set()

    @property
    def given(self) -> bool:
        """Whether it was asked to end."""
        return self.event.is_set()

    @property
    def retired(self) -> bool:
        """Whether it was asked to end because its ledger no longer belongs to any primary."""
        return self.given and self._ending is Ending.SLOTS_MOVED
