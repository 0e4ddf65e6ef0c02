"""The books of a verification: which keys were set, and what arrived for them. All that is judged is judged here."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum, auto
from math import ceil

from bridge.commands.readers import Arrival
from bridge.commands.verify.plan import Plan
from bridge.expiration import Identity, Via

NAMED = 5
"""Keys that are named, of those that are missed, and of those that are false."""


class Fate(IntEnum):
    """Of one key."""

    UNSET = 0
    AWAITED = auto()
    """It is to expire, and to be announced."""
    DELIVERED = auto()
    CONTROL = auto()
    """It shall be taken back; until we know that it was, in time, nothing can be said of it."""
    WITHDRAWN = auto()
    """It was taken back in time, and must not be announced."""
    VOID = auto()
    """It was taken back too late: it may or may not be announced."""


class Falsehood(StrEnum):
    """Why a message ought not to be."""

    EARLY = "before the key's deadline"
    CONTROL = "for a key that was deleted or postponed before its deadline"
    NO_SUCH_KEY = "for a key that was not set"
    MISTAKEN = "with an id or a deadline that is not the key's"


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was read: Redis's clock in Unix milliseconds, as far as it is known."""

    now_ms: float
    error_ms: float
    """By which `now_ms` may be wrong."""


@dataclass(frozen=True, slots=True)
class Lag:
    """From the deadline to the moment at which a message was stored, in milliseconds."""

    p50: float
    p99: float
    max: float


class Books:
    """A few bytes per key, whatever arrives."""

    def __init__(self, plan: Plan, identity: Identity) -> None:
        self.plan = plan
        self._identity = identity
        self._states = bytearray(plan.total)
        self._deadlines_ms = array("q", bytes(8 * plan.total))
        self._lags_ms = array("d")
        self._unknown_ids: dict[int, str] = {}
        """Of keys that were announced without a deadline."""
        self.set = 0
        self.last_deadline_ms = 0
        """Of the keys that are to expire."""
        self.delivered = 0
        self.duplicates = 0
        """Messages whose id had arrived already."""
        self.ambiguous = 0
        """Keys that were deleted, and announced as after a gap: the bridge cannot tell, and says so in a gap record."""
        self.falsehoods: Counter[Falsehood] = Counter()
        self.false_keys: list[str] = []
        """The first few."""
        self.read_clocks: Counter[str] = Counter()
        """By which clock lags were measured: `broker`, or `redis` at the time of reading."""
        self.skew_ms = 0.0
        """By how much the broker's clock is at least ahead of Redis's (negative: behind)."""

    def plant(self, number: int, deadline_ms: int) -> None:
        """A key is about to be set."""
        control = self.plan.is_control(number)
        self._states[number] = Fate.CONTROL if control else Fate.AWAITED
        self._deadlines_ms[number] = deadline_ms
        self.set += not control
        if not control:
            self.last_deadline_ms = max(self.last_deadline_ms, deadline_ms)

    def withdraw(self, number: int, *, in_time: bool) -> None:
        """A control was taken back."""
        if self._states[number] == Fate.CONTROL:
            self._states[number] = Fate.WITHDRAWN if in_time else Fate.VOID

    def arrived(self, arrival: Arrival, moment: Moment) -> None:
        """A message was read; others' are none of our business."""
        if not arrival.key.startswith(self.plan.prefix.encode()) or (arrival.field is not None) != self.plan.fields:
            return
        number = self.plan.number(arrival.key)
        state = Fate.UNSET if number is None else Fate(self._states[number])
        if number is None or state is Fate.UNSET:
            self._false(Falsehood.NO_SUCH_KEY, arrival)
            return
        if state is Fate.WITHDRAWN:
            if self.plan.is_deleted(number) and arrival.via is Via.SWEEP:
                self.ambiguous += 1
            else:
                self._false(Falsehood.CONTROL, arrival)
            return
        deadline_ms = self._deadlines_ms[number]
        if not self._is_its_own(number, arrival):
            self._false(Falsehood.MISTAKEN, arrival)
        elif arrival.observed_ms < deadline_ms or moment.now_ms + moment.error_ms < deadline_ms:
            self._false(Falsehood.EARLY, arrival)
        elif state is Fate.CONTROL:
            self._states[number] = Fate.VOID
        elif state is Fate.DELIVERED:
            self.duplicates += 1
        elif state is Fate.AWAITED:
            self._deliver(number, arrival, moment)

    @property
    def awaited(self) -> int:
        """Keys that were set to expire, and are not delivered."""
        return self.set - self.delivered

    @property
    def false(self) -> int:
        """Messages that ought not to be."""
        return self.falsehoods.total()

    @property
    def without_deadline(self) -> int:
        """Delivered, but with an unknown deadline."""
        return len(self._unknown_ids)

    @property
    def controls(self) -> int:
        """Keys that were taken back in time."""
        return self._states.count(Fate.WITHDRAWN)

    @property
    def ok(self) -> bool:
        """Whether all was delivered, and nothing else."""
        return not self.awaited and not self.false

    def lag(self) -> Lag | None:
        """None if nothing was delivered."""
        lags = sorted(self._lags_ms)
        return Lag(_rank(lags, 0.5), _rank(lags, 0.99), lags[-1]) if lags else None

    def missed(self) -> Iterator[str]:
        """The keys that were not delivered."""
        return (self.plan.key(n).decode() for n, state in enumerate(self._states) if state == Fate.AWAITED)

    def left(self) -> Iterator[bytes]:
        """The keys that may still be there."""
        gone = (Fate.UNSET, Fate.DELIVERED)
        return (self.plan.key(number) for number, state in enumerate(self._states) if state not in gone)

    def _is_its_own(self, number: int, arrival: Arrival) -> bool:
        """Whether the id is the one of the key's only occurrence, as far as that can be told."""
        if arrival.deadline_ms is not None:
            deadline_ms = self._deadlines_ms[number]
            expected = self._identity.of_deadline(arrival.key, deadline_ms)
            if arrival.field is not None:
                expected = self._identity.of_field(arrival.key, arrival.field, deadline_ms)
            return number not in self._unknown_ids and (arrival.id, arrival.deadline_ms) == (expected, deadline_ms)
        if self._states[number] == Fate.DELIVERED:
            return self._unknown_ids.get(number) == arrival.id
        return True

    def _deliver(self, number: int, arrival: Arrival, moment: Moment) -> None:
        self._states[number] = Fate.DELIVERED
        self.delivered += 1
        if arrival.deadline_ms is None:
            self._unknown_ids[number] = arrival.id
        deadline_ms = self._deadlines_ms[number]
        if arrival.stored_ms is None:
            self.read_clocks["redis"] += 1
            self._lags_ms.append(moment.now_ms - deadline_ms)
            return
        self.read_clocks["broker"] += 1
        self._lags_ms.append(arrival.stored_ms - deadline_ms)
        # It was stored after the deadline, and before it was read.
        ahead, behind = arrival.stored_ms - moment.now_ms - moment.error_ms, arrival.stored_ms - deadline_ms
        if ahead > max(self.skew_ms, 0):
            self.skew_ms = ahead
        elif behind < min(self.skew_ms, 0):
            self.skew_ms = behind

    def _false(self, why: Falsehood, arrival: Arrival) -> None:
        self.falsehoods[why] += 1
        if len(self.false_keys) < NAMED:
            self.false_keys.append(arrival.key.decode(errors="backslashreplace"))


def _rank(ordered: Sequence[float], share: float) -> float:
    """The smallest value that no less than that share of the values does not exceed."""
    return ordered[ceil(share * len(ordered)) - 1]
