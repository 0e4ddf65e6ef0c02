"""The request to a source to end: given once, by whoever runs it."""

import asyncio

from bridge.endings import Ending


class Stop:
    """See the module."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        """Set when it is given."""
        self._ending = Ending.SHUTDOWN

    def give(self, ending: Ending) -> None:
        """The source is to end, for that reason."""
        self._ending = ending
        self.event.set()

    @property
    def given(self) -> bool:
        """Whether it is to end."""
        return self.event.is_set()

    @property
    def retired(self) -> bool:
        """Whether it is to end because its ledger is no longer that of any primary."""
        return self.given and self._ending is Ending.SLOTS_MOVED
