"""The walk of the whole ledger, a part at a time, in turns with touches of what is due.

An epoch that opens with a gap begins with a walk. Another walk follows when slots of a cluster have gone to other
nodes, and keys with them; but only after the present walk, and after the gap is closed. Pure.
"""

START = b"0"
"""The cursor where it begins, and the one with which Redis says that it is done."""


class Walk:
    """The walks of one epoch."""

    def __init__(self, *, needed: bool = True) -> None:
        """`needed`: whether a gap is open, which is not closed without one."""
        self.cursor: bytes | None = START if needed else None
        """Where it goes on; None when it is done."""
        self._in_gap = needed
        self._repeat = False
        self._last = False
        """Whether the last touch was one of the walk."""

    def take_turn(self, *, overdue: bool, full: bool) -> bool:
        """Whether the next touch is one of the walk: every other one while something is overdue, none while `full`."""
        self._last = self.cursor is not None and not full and not (overdue and self._last)
        return self._last

    def walked(self, cursor: bytes) -> None:
        """A part of the ledger was walked, up to `cursor`."""
        self.cursor = None if cursor == START else cursor
        self._begin_again()

    def repeat(self) -> None:
        """Go through the whole ledger once more, when the walk under way is done, and the gap closed."""
        self._repeat = True
        self._begin_again()

    def gap_closed(self) -> None:
        """From now on another walk may begin."""
        self._in_gap = False
        self._begin_again()

    def _begin_again(self) -> None:
        if self._repeat and self.cursor is None and not self._in_gap:
            self._repeat = False
            self.cursor = START
