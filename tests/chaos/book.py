"""The writer's book: every life of every key, and the judgement of what was announced of them.

A *life* begins when a key gets a deadline and ends when the key expires, or when the writer ends it: deletes the key,
renames, persists or overwrites it, or gives it another deadline. The writer works with scripts that tell what they
found, so the book knows which of the two it was, and when at the latest. What it does not know, because Redis died
with an answer, it marks as doubtful and asks nothing about.

Pure: no I/O, no clock. All moments are in ms on Redis's clock.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LEEWAY_MS = 5
"""Between two readings of Redis's clock that are of one moment."""
DRIFT_MS = 1_000
"""How much later a deadline may be once a key was carried to another node, which counts it anew."""
MISSING, PERSISTENT = -2, -1
"""What PEXPIRETIME says of a key that is not there, and of one without a deadline."""


@dataclass(eq=False)
class Life:
    """One life of a key."""

    key: str
    deadline_ms: int
    recorded: bool = False
    """Whether the ledger was seen to know of it."""
    found_gone_ms: int | None = None
    """It expired, at this moment at the latest."""
    back_ms: int | None = None
    """It expired, and the key was there again from this moment on."""
    ended_ms: int | None = None
    """The writer ended it, at this moment."""
    endless_until_ms: int | None = None
    """It was ended so that the key had no deadline, until this moment. A plain SET does that, and is not among what the
    bridge is told of, so the ledger may have known of the life until then.
    """

    @property
    def over(self) -> bool:
        """Whether it is known how it ended."""
        return self.found_gone_ms is not None or self.ended_ms is not None


@dataclass
class History:
    """All that is known of a key."""

    lives: list[Life] = field(default_factory=list)
    persistent: bool = False
    """Whether it is there now, without a deadline."""
    doubtful: int = 0
    """How many commands may have been run, or not."""

    @property
    def current(self) -> Life | None:
        """The life that is not known to be over."""
        return self.lives[-1] if self.lives and not self.lives[-1].over else None


class Book:
    """What the writer knows."""

    def __init__(self, moved: Callable[[str], bool] = lambda _: False) -> None:
        """`moved`: whether a key was carried to another node, or may have been."""
        self.moved = moved
        self.histories: dict[str, History] = defaultdict(History)
        self.surprises: list[str] = []
        """What Redis said of a key and the book cannot explain: somebody else has changed it."""
        self._unrecorded: dict[str, Life] = {}
        self._unsettled = False

    def saw(self, key: str, now_ms: int, before: int, score: str, after: int) -> Life | None:
        """A script of the writer's ran on the key: its deadline before and after it, and the ledger's before it.

        Returns the life that has begun.
        """
        history = self.histories[key]
        life = history.current
        if life is not None:
            self.knows(life, score)
        if before == MISSING and life is not None:
            self._expect(life.deadline_ms <= now_ms + LEEWAY_MS, key, now_ms, before)
            life.found_gone_ms = now_ms
        else:
            known = PERSISTENT if history.persistent else MISSING if life is None else life.deadline_ms
            drift = DRIFT_MS if known > 0 and self.moved(key) else 0
            self._expect(known <= before <= known + drift, key, now_ms, before)
            if life is not None and after != before:
                life.ended_ms = now_ms
        if history.persistent and after != PERSISTENT and history.lives:
            history.lives[-1].endless_until_ms = now_ms
        history.persistent = after == PERSISTENT
        if after != MISSING and history.lives:
            last = history.lives[-1]
            if last.found_gone_ms is not None and last.back_ms is None:
                last.back_ms = now_ms
        if after < 0 or history.current is not None:
            return None
        begun = Life(key, after)
        if any(life.deadline_ms == after for life in history.lives):
            self.unsure(key)  # the ledger may know the deadline from the former life
        else:
            self._unrecorded[key] = begun
        history.lives.append(begun)
        return begun

    def unsure(self, key: str) -> None:
        """A script may have run on the key, or not. Nothing is known of the key any more."""
        self.histories[key].doubtful += 1
        self._unrecorded.pop(key, None)

    def knows(self, life: Life, score: str) -> None:
        """The ledger has that deadline for the key."""
        life.recorded |= not self._unsettled and score == str(life.deadline_ms)

    @contextmanager
    def unsettled(self, since_ms: int) -> Iterator[None]:
        """Meanwhile a ledger goes to another node: what it knows need not be known after it.

        Nor what it knew before, of lives that were not over at `since_ms`.
        """
        for key, history in self.histories.items():
            if (life := history.current) is not None and life.deadline_ms > since_ms and not history.doubtful:
                life.recorded = False
                self._unrecorded[key] = life
        self._unsettled = True
        yield
        self._unsettled = False

    def unrecorded(self) -> list[Life]:
        """The current lives that the ledger was not seen to know of."""
        self._unrecorded = {key: life for key, life in self._unrecorded.items() if not life.recorded and not life.over}
        return list(self._unrecorded.values())

    def _expect(self, true: bool, key: str, now_ms: int, found: int) -> None:  # noqa: FBT001 - as in assert
        if not true and not self.histories[key].doubtful:
            self.surprises.append(f"{key} had the deadline {found} at {now_ms}: {self.histories[key]}")
