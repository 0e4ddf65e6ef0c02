"""The lives of keys.

A *life* begins when a key gets a deadline, or another one, or loses it; it ends when the key expires, is deleted, or
begins another life.
"""

from dataclasses import dataclass, field
from enum import Enum, auto


class Fate(Enum):
    """What became of a life."""

    ALIVE = auto()
    REPLACED = auto()
    """By the next life of the key, of which the bridge is told, or not."""
    EXPIRED = auto()
    DELETED = auto()


class Promise(Enum):
    """What is promised of an expiration whose notification is lost."""

    RECORDED = auto()
    """It is announced, unless the key is back before anybody looks: then it is counted."""
    LATER = auto()
    """The same, unless the key is back before the entry goes: the ledger knew a nearer deadline of it."""
    NEARER = auto()
    """The same, unless the key is set again before: the ledger knew a later deadline of it."""
    NOTHING = auto()


@dataclass(eq=False, slots=True)
class Life:
    """One life of a key. Times are Redis's, in ms."""

    key: bytes
    number: int
    deadline: int | None
    began_ms: int
    fate: Fate = Fate.ALIVE
    ended_ms: int = 0
    entry: int | None = None
    """What the ledger had for the key when it ended."""
    recorded: bool = False
    """Whether a batch has read this life, and left its deadline in the ledger."""
    promise: Promise = Promise.NOTHING
    left: bool = False
    """Whether the ledger's entry has changed since it expired."""
    unaware: bool = False
    """Whether its entry was changed when it was muted, and no gap was open yet: only `missed` counts it then."""
    sure: bool = False
    """Whether a touch saw it gone and nothing in its place, and that touch was resolved."""
    back_ms: int | None = None
    """When the key was there again."""
    notified: bool = True
    """Whether subscribers were told that it ended."""
    epoch: tuple[int, int] = (0, 0)
    """In which it ended: shard and fence."""
    values: list[bytes] = field(default_factory=list)
    """That the key had, the last one last."""
