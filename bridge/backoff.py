"""How long to wait before trying again: exponential, capped, with equal jitter: half is fixed, half is drawn.

Jitter keeps many bridges from returning to a recovering server in step (AWS Architecture Blog, "Exponential Backoff
And Jitter"); the fixed half keeps one bridge from several attempts in a moment, however the draws fall. The owner calls
`reset()` only on *proven* health, never on a bare connect: a server that accepts and then fails must not be hammered.
"""

import random

JITTER = random.Random()  # noqa: S311 - jitter, not a secret
"""Of all retry loops that are given no other; a simulation seeds it."""


class Backoff:
    """The delays of one retry loop, in seconds."""

    def __init__(self, first: float = 0.1, most: float = 10.0, rng: random.Random | None = None) -> None:
        self._first = first
        self._most = most
        self._rng = rng or JITTER
        self._ceiling = first

    def next(self) -> float:
        """The next delay in seconds: between half the ceiling and the ceiling, which doubles each time."""
        ceiling = self._ceiling
        self._ceiling = min(ceiling * 2, self._most)
        return self._rng.uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Health was proven: start again at the first delay."""
        self._ceiling = self._first
