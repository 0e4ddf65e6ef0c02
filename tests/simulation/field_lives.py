"""The lives of fields, and what the bridge's script makes of them.

A field's life begins when it gets a deadline, or another one. It *lapses* when its deadline passes in it, whatever the
server notices of that and when; it ends when the field goes, or is written, or gets another deadline.
"""

from dataclasses import dataclass, field
from enum import Enum, auto


class End(Enum):
    """How a life has ended."""

    LASTS = auto()
    EXPIRED = auto()
    """The server let the field go, past its deadline."""
    REMOVED = auto()
    """The field, or the whole hash."""
    WRITTEN = auto()
    """The field was set again, put off, or lost its deadline: it is there."""
    REPLACED = auto()
    """Another type of value replaced the hash. No notification says so."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One of a field. Times are Redis's, in ms."""

    key: bytes
    name: bytes
    """Of the field."""
    deadline: int
    sweep: bool
    at: int
    epoch: tuple[int, int]
    """Shard and fence."""
    there: bool
    """Whether the field was there, and not past its deadline."""
    replaced: bool
    """Whether its hash was another type of value."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One, of a hash."""

    event: str
    at: int
    epoch: tuple[int, int]
    """Shard and fence."""


@dataclass(eq=False, slots=True)
class FieldLife:
    """One life of a field."""

    key: bytes
    name: bytes
    """Of the field."""
    deadline: int
    began_ms: int
    end: End = End.LASTS
    ended_ms: int = 0
    claims: list[Claim] = field(default_factory=list)

    def lapsed(self, now: int) -> bool:
        """Whether its deadline has passed in it."""
        return (now if self.end is End.LASTS else self.ended_ms) > self.deadline
