"""Marks: everything that the return of a mark decides.

A mark is a notification that a script of the epoch causes itself, so its place in the stream is the script's own. When
it comes back, every hint that Redis sent before the script has been taken from the stream. That decides three things:

* If it is a touch's mark, the *round* of that touch may be resolved now.
* If it is a batch's mark, the keys that the batch wrote are no longer *ahead*. Until now their entries knew more than
  the hints still on their way.
* An expiration that was *held* belongs to a former life of its key: the key expired while it was ahead. (If the key's
  own mark had been lost, another mark would have come back in its place, and that is noticed.)

Marks come back in the order of their scripts. One that comes back before an earlier one proves that notifications were
off for a moment. Pure: no I/O, no clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.redis.protocol.anchor import Anchor, Measured
from bridge.redis.protocol.calls import Touched

Sight = tuple[bytes, bytes, bytes]
"""What a touch saw of a key: score, GONE, ALIVE or MOVED, `1` (due) or `0`. The arguments of a resolve."""


_OVERTAKEN = "notifications were mute for a moment: a mark came back, and an earlier one did not"


class MarkLostError(Exception):
    """A mark came back before an earlier one: notifications were off for a moment. The message says so."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What else a touch is made for."""

    walk: bool = False
    """Whether it goes through a part of the whole ledger, instead of the due entries."""
    audit: bool = False
    """Whether it reads the counters of the audit."""
    close: bool = False
    """Whether the gap can be closed when its mark is back."""


@dataclass(slots=True)
class Round:
    """One touch, until what it saw is resolved."""

    mark: bytes
    redis_ms: int
    """When Redis ran it."""
    complete: bool
    """Whether it saw everything that was due. One script can see only a limited number of entries."""
    purpose: Purpose = field(default_factory=Purpose)
    touched_at: float = 0.0
    """On the bridge's clock, in seconds: when its reply came."""
    counters: Sequence[bytes | int] = ()
    """What it read for the audit."""
    measured: Measured | None = None
    """What it read for an anchor."""
    pending: dict[bytes, Sight] = field(default_factory=dict)
    """What it saw, without the keys that an `expired` hint before the mark has claimed."""
    resolving: deque[tuple[bytes, Sight]] = field(default_factory=deque)
    """Once the mark is back: what has to be resolved."""
    marked: bool = False
    """Whether its mark is back."""
    heard: int = 0
    """Notifications of expirations before the mark, once that is back."""
    void: int = 0
    """Canaries that turned out void before the mark, unknown to that touch."""
    stuck: int = 0
    """Entries that could not be resolved, because the slots of their keys are on their way to another node."""

    @classmethod
    def of(cls, mark: bytes, touched: Touched, purpose: Purpose, touched_at: float) -> "Round":
        """The round of a touch."""
        pending = {key: (score, state, due) for key, score, state, due in touched.sights}
        redis_ms = touched.state.now_us // 1000
        return cls(mark, redis_ms, touched.complete, purpose, touched_at, touched.counters, touched.measured, pending)

    @property
    def resolved(self) -> bool:
        """Whether its mark is back, and everything that it saw is in batches."""
        return self.marked and not self.resolving


class Marks:
    """Those of one epoch."""

    def __init__(self, heard: int = 0, word: bytes = b"") -> None:
        """`heard`: notifications of expirations that former epochs have handled. `word`: see `Anchor`."""
        self.anchor: Anchor | None = None
        """The last touch that can be an anchor, once everything that it saw is resolved."""
        self._word = word
        self.heard = heard
        """Notifications of expirations taken from the stream, in all epochs, of all databases, without canaries."""
        self.round: Round | None = None
        """The touch that is not resolved yet. At most one at a time."""
        self.released: deque[bytes] = deque()
        """Keys that expired while they were ahead. A mark has proved that this was in a former life."""
        self._held: list[bytes] = []
        """Keys that expired while they were ahead. No mark has come back since."""
        self._outstanding: dict[bytes, Sequence[bytes]] = {}
        """Marks on their way, in the order in which they have to come back, with the keys that each keeps ahead."""
        self._ahead: dict[bytes, int] = {}
        """How many marks on their way keep each key ahead."""

    @property
    def handled(self) -> int:
        """How many of the notifications in `heard` are in batches, or need not be."""
        return self.heard - len(self._held) - len(self.released)

    @property
    def deciding(self) -> bool:
        """Whether anything waits for a mark to decide, or is decided and waits for a batch."""
        return self.round is not None or bool(self._held or self.released)

    def batch_left(self, mark: bytes, ahead: Sequence[bytes]) -> None:
        """A batch was applied that made these keys ahead. If there are none, it has left no mark."""
        if ahead:
            self._outstanding[mark] = tuple(ahead)
            for key in ahead:
                self._ahead[key] = self._ahead.get(key, 0) + 1

    def touch_left(self, touched: Round) -> None:
        """A touch was made."""
        self._outstanding[touched.mark] = ()
        self.round = touched

    def left(self, mark: bytes) -> None:
        """A script has left a mark that decides nothing about keys."""
        self._outstanding[mark] = ()

    def is_ahead(self, key: bytes) -> bool:
        """Whether hints of the key that are older than its entry may still be on their way."""
        return key in self._ahead

    def hold(self, key: bytes) -> None:
        """The key expired, and is ahead."""
        self._held.append(key)

    def returned(self, key: bytes, void: int) -> bool:
        """Whether the key whose end was notified is an outstanding mark. If so, decide what it decides.

        `void`: canaries that have turned out void by now. Raises MarkLostError.
        """
        if key not in self._outstanding:
            return False
        if key != next(iter(self._outstanding)):
            raise MarkLostError(_OVERTAKEN)
        for freed in self._outstanding.pop(key):
            self._ahead[freed] -= 1
            if not self._ahead[freed]:
                del self._ahead[freed]
        self._release()
        round_ = self.round
        if round_ is not None and key == round_.mark:
            round_.marked, round_.heard, round_.void = True, self.heard, void
            round_.resolving.extend(round_.pending.items())
            round_.pending.clear()
        return True

    def former_returned(self, key: bytes) -> None:
        """A mark of a former epoch is back. It only decides about what is held. Raises MarkLostError."""
        awaited = next(iter(self._outstanding), key)
        fence, _, number = key.rpartition(b"-")
        its_fence, _, its_number = awaited.rpartition(b"-")
        if fence == its_fence and number.isdigit() and int(its_number) < int(number):
            raise MarkLostError(_OVERTAKEN)
        self._release()

    def _release(self) -> None:
        self.released.extend(self._held)
        self._held.clear()

    def finished_round(self) -> Round | None:
        """The round, returned once, when all of it is resolved; else None."""
        finished = self.round
        if finished is None or not finished.resolved:
            return None
        self.round = None
        if finished.measured is not None:
            self.anchor = Anchor(finished.mark, finished.heard, self._word, finished.measured)
        return finished
