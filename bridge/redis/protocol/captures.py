"""Captures: which values are read when, and which of them are known to be the last ones.

A value is read shortly before its key's deadline, on a connection that Redis tracks. If the key is written after that,
the stream of notifications shows it, at its place (`CLIENT TRACKING … REDIRECT`). When a key expires, `expired` comes
first. So a value that was captured, and not invalidated before the key's `expired` is handled, is the last one of that
life of the key. It is *proven* if that connection still stands when the claim is made (`epoch/tracked.py`).

* An invalidation removes the proof, until the value is captured again.
* Nothing of a former epoch, or of a former connection, is proven. Nor is what a sweep claims.
* The list of deadlines follows the ledger: an entry that is written when its place in the list was already passed is
  captured in its time (`recorded`). The list does not go back for it: where a crowd is listed early, it would never get
  through.

Pure: no I/O, no clock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from bridge.limits import EpochLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.crowds import Crowds
from bridge.redis.protocol.notifications import Kind

Entry = tuple[bytes, int]
"""Key and deadline."""
UNREAD = -1
"""Instead of a size: the key does not have that deadline, or no longer has it."""


@dataclass(slots=True)
class Held:
    """What is known of the value of one key."""

    deadline_ms: int
    size: int = 0
    """Bytes that are held in Redis; 0 until it was captured."""
    proven: bool = False
    waiting: bool = True
    """Whether it has to be captured, or captured again."""


@dataclass(slots=True)
class Cursor:
    """How far the ledger is listed: up to this entry; without a key, including all entries of that deadline."""

    deadline_ms: int = 0
    key: bytes = b""


@dataclass(slots=True)
class Former:
    """Values that a former epoch holds. Their keys are not known here."""

    count: int = 0
    bytes: int = 0

    def take(self) -> int:
        """The usual size of one, in bytes."""
        if not self.count:
            return 0
        size = self.bytes // self.count
        self.count, self.bytes = self.count - 1, self.bytes - size
        return size


@dataclass(slots=True)
class Wanted:
    """Which values are wanted, and when."""

    matches: Callable[[bytes], object] | None
    """Whether the value of a key is wanted; None if all are."""
    lead_ms: int
    """How long before its deadline a value is captured at most, unless too many have the same deadline."""


class Captures:
    """Those of one epoch."""

    def __init__(self, wanted: Wanted, limits: EpochLimits, former: Former | None = None, now_ms: float = 0) -> None:
        """`now_ms`: entries whose deadline is before that are not listed."""
        self.cursor = Cursor(int(now_ms))
        self.crowds = Crowds(limits)
        self.claiming = 0
        """Bytes of values that the batch now being made claims."""
        self._wanted = wanted
        self._limits = limits
        self._former = former or Former()
        self._following_ms: int | None = 0
        """The first deadline that is not listed; None if there is none, 0 if it is not known."""
        self._held: dict[bytes, Held] = {}
        self._listed: deque[bytes] = deque()
        """To be captured, in the order of their deadlines."""
        self._again: deque[bytes] = deque()
        """To be captured again, because they were written."""
        self._behind: dict[bytes, int] = {}
        """The deadlines of those that were recorded when their place in the list was already passed."""
        self._behind_in_order: list[tuple[int, bytes]] = []
        """A heap of them, and of what they were before."""

    def __len__(self) -> int:
        """The number of keys about which something is known."""
        return len(self._held)

    # When.

    def due_in_ms(self, now_ms: float) -> float | None:
        """Time until there is something to capture, or to list; None if nothing is in sight."""
        if self._again or self._listed:
            return 0.0
        start_ms = self._behind_in_order[0][0] - self._wanted.lead_ms / 2 if self._behind_in_order else inf
        if not self.full and self._following_ms is not None:
            start_ms = min(start_ms, self._following_ms - self._wanted.lead_ms / 2)
            listed_ms = self.cursor.deadline_ms - bool(self.cursor.key)  # there may be more of its last deadline
            start_ms = min(start_ms, self.crowds.begin_ms(listed_ms))
        return None if start_ms == inf else max(start_ms - now_ms, 0.0)

    def up_to_ms(self, now_ms: float) -> int:
        """The last deadline that should be listed now."""
        return max(int(now_ms) + self._wanted.lead_ms, self.crowds.end_ms(now_ms))

    @property
    def full(self) -> bool:
        """Whether no more may be listed now."""
        return len(self._held) + len(self._behind_in_order) >= self._limits.held_values

    @property
    def idle(self) -> bool:
        """Whether everything listed is captured."""
        return not (self._again or self._listed)

    # The list.

    def listed(self, entries: Sequence[Entry], up_to_ms: int, following_ms: int | None) -> None:
        """These follow in the ledger. `following_ms`: the first deadline after them; None if there is none."""
        for key, deadline_ms in entries:
            self._behind.pop(key, None)
            held = self._held.get(key)
            if held is not None and held.deadline_ms == deadline_ms:
                continue
            if self._wants(key):
                if held is None or not held.waiting:
                    self._listed.append(key)
                self._held[key] = Held(deadline_ms)
        if following_ms is not None and following_ms <= up_to_ms:
            key, deadline_ms = entries[-1]
            self.cursor = Cursor(deadline_ms, key)
        elif following_ms != self.cursor.deadline_ms:  # else some of its entries have to be listed later
            self.cursor = Cursor(max(up_to_ms, self.cursor.deadline_ms))
        self._following_ms = following_ms

    def recorded(self, behind: Iterable[Entry], first_ms: int | None) -> None:
        """Entries were written: these, whose place was already passed; and others, the first with that deadline."""
        for key, deadline_ms in behind:
            if not self._wants(key):
                continue
            self._held.pop(key, None)  # what was held of it went with its former entry
            if self.full:
                self._behind.pop(key, None)
                first_ms = deadline_ms if first_ms is None else min(first_ms, deadline_ms)
            else:
                self._behind[key] = deadline_ms
                heappush(self._behind_in_order, (deadline_ms, key))
        if first_ms is None:
            return
        if first_ms <= self.cursor.deadline_ms:
            self.cursor = Cursor(first_ms - 1)
        if self._following_ms is None or first_ms < self._following_ms:
            self._following_ms = first_ms

    # What is captured.

    def take(self, most: int, now_ms: float) -> list[Entry]:
        """What to capture next, up to a limit. Call `captured` or `lost` after it."""
        self._catch_up(now_ms)
        taken: list[Entry] = []
        for waiting in (self._again, self._listed):
            while waiting and len(taken) < most:
                key = waiting.popleft()
                held = self._held.get(key)
                if held is None or not held.waiting:
                    continue
                if held.deadline_ms < now_ms:
                    self._pass_by(key, held)
                    continue
                held.waiting = False
                taken.append((key, held.deadline_ms))
        return taken

    def captured(self, asked: Sequence[Entry], sizes: Sequence[int], changing: Iterable[int], *, tracked: bool) -> None:
        """What a capture did: for the first keys, the bytes held, or UNREAD. It did not look at the others.

        `changing`: the indices of keys that may change without being written. `tracked`: whether a write would show.
        """
        unprovable = set(changing)
        for index, (key, deadline_ms) in enumerate(asked[: len(sizes)]):
            held = self._held.get(key)
            if held is None or held.deadline_ms != deadline_ms:
                continue
            if sizes[index] == UNREAD:
                del self._held[key]
            else:
                held.size = sizes[index]
                held.proven = tracked and index not in unprovable
        for key, _ in reversed(asked[len(sizes) :]):
            if (held := self._held.get(key)) is not None:
                held.waiting = True
                self._listed.appendleft(key)

    def prune(self, now_ms: float) -> None:
        """Forget keys long past their deadlines: they have another entry now, or their claims have to wait long."""
        past_ms = now_ms - self._limits.forget_values_ms
        while self._held:
            key, held = next(iter(self._held.items()))
            if held.deadline_ms >= past_ms:
                return
            del self._held[key]
            self._former.count += held.size > 0
            self._former.bytes += held.size

    def _catch_up(self, now_ms: float) -> None:
        """What was recorded late, and is due, comes before everything that is listed: it may be a crowd."""
        due: list[bytes] = []
        while self._behind_in_order and self._behind_in_order[0][0] <= now_ms + self._wanted.lead_ms:
            deadline_ms, key = heappop(self._behind_in_order)
            if self._behind.get(key) == deadline_ms:
                del self._behind[key]
                self._held[key] = Held(deadline_ms)
                due.append(key)
        self._listed.extendleft(reversed(due))

    def _wants(self, key: bytes) -> bool:
        return self._wanted.matches is None or bool(self._wanted.matches(key))

    def _pass_by(self, key: bytes, held: Held) -> None:
        """It is too late to capture it."""
        held.waiting = False
        if not held.size:
            del self._held[key]

    # What the interpreter tells, and asks.

    def notified(self, kind: Kind, key: bytes) -> bool:
        """Whether it is an invalidation. No other bridge hears it, so it does not count for the place."""
        if kind is Kind.CHANGED:
            self.changed(key)
        elif kind is Kind.ALL_CHANGED:
            self.lost()
        else:
            return False
        return True

    def changed(self, key: bytes) -> None:
        """The key was written, or may have been."""
        held = self._held.get(key)
        if held is not None and held.size:
            self._again_please(key, held)

    def lost(self) -> None:
        """Any key may have been written unnoticed."""
        for key, held in self._held.items():
            self._again_please(key, held)

    def _again_please(self, key: bytes, held: Held) -> None:
        held.proven = False
        if not held.waiting:
            held.waiting = True
            self._again.append(key)

    def expired(self, key: bytes) -> op.Operation | tuple[()]:
        """The key's `expired` was notified, and is claimed. Returns the operation that proves its value, if any."""
        held = self._claim(key)
        return op.proven(key, held.deadline_ms) if held is not None and held.proven else ()

    def swept(self, key: bytes) -> None:
        """The key may be claimed by a sweep."""
        self._claim(key)

    def gone(self, key: bytes) -> None:
        """The key is gone, and did not expire."""
        self._held.pop(key, None)

    def _claim(self, key: bytes) -> Held | None:
        held = self._held.pop(key, None)
        self.claiming += held.size if held is not None and held.size else self._former.take()
        return held
