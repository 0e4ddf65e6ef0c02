"""Where things are in a deployment with several ledgers, for the judge: what is judged with what."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
"""The data of a gap record."""


@dataclass(frozen=True)
class Upheaval:
    """When the primary of some places, or of all, was becoming another one, or its ledger was."""

    places: frozenset[str]
    """Empty: all."""
    begun_ms: int
    ended_ms: int


@dataclass(frozen=True)
class Ground:
    """Where things are; by default, all in one place."""

    place: Callable[[str], str | None] = lambda _: ""
    """Of a key; None if it was in several."""
    places: Callable[[Record], Collection[str]] = lambda _: ("",)
    """Of a gap."""
    upheavals: Sequence[Upheaval] = ()
