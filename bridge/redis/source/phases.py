"""The phases of a source, and which may follow which: its whole state machine."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Phase(Enum):
    """Where a source is. The values are names for logs and diagrams."""

    LOCATING = "locating"
    """Looking for the primary, preparing it, and asking for the lease."""
    STANDING_BY = "standing by"
    """Another bridge has the lease, or should get it; this one listens."""
    TAKING_OVER = "taking over"
    """The lease is ours; what was notified before is still on its way."""
    RECONCILING = "reconciling"
    """An epoch has begun, and its gap is open."""
    WATCHING = "watching"
    """The gap is closed: the whole way works."""
    ENDED = "ended"
    """The epoch, or the attempt to begin one, is over: the next follows after a pause."""
    STOPPED = "stopped"


_ANY_TIME = {Phase.ENDED, Phase.STOPPED}

TRANSITIONS: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        Phase.LOCATING: frozenset({Phase.STANDING_BY, Phase.TAKING_OVER, *_ANY_TIME}),
        Phase.STANDING_BY: frozenset({Phase.LOCATING, Phase.TAKING_OVER, *_ANY_TIME}),
        Phase.TAKING_OVER: frozenset({Phase.RECONCILING, Phase.WATCHING, *_ANY_TIME}),
        Phase.RECONCILING: frozenset({Phase.WATCHING, *_ANY_TIME}),
        Phase.WATCHING: frozenset(_ANY_TIME),
        Phase.ENDED: frozenset({Phase.LOCATING, Phase.STOPPED}),
        Phase.STOPPED: frozenset(),
    }
)


class Phases:
    """The phase of one source, from its start to its end."""

    def __init__(self) -> None:
        self.now = Phase.LOCATING
        self._reached = {self.now}

    def enter(self, phase: Phase) -> None:
        """Go on to that phase; it may be the present one. Raises RuntimeError if it does not follow."""
        if phase is self.now:
            return
        if phase not in TRANSITIONS[self.now]:
            raise RuntimeError(f"a source cannot be {phase.value} after {self.now.value}")
        self.now = phase
        self._reached.add(phase)

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch is under way."""
        return self.now in {Phase.RECONCILING, Phase.WATCHING}

    @property
    def served(self) -> bool:
        """Whether Redis has ever served this bridge. If it has, a refusal is not the fault of the settings alone."""
        return not self._reached.isdisjoint({Phase.STANDING_BY, Phase.WATCHING})

    @property
    def has_watched(self) -> bool:
        """Whether any gap was ever closed."""
        return Phase.WATCHING in self._reached
