"""What a simulated Redis keeps, and what it answers."""

import copy
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

StreamId = tuple[int, int]


class Status(bytes):
    """A simple string, as `+OK`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that is part of a reply."""

    text: bytes


class CommandError(Exception):
    """The command fails with this answer."""


OK = Status(b"OK")
Reply = None | int | bytes | Failure | list["Reply"]


class SortedSet:
    """Members by score."""

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, score: float, member: bytes) -> bool:
        """Whether it is new."""
        former = self.scores.get(member)
        if former is not None:
            del self.order[bisect_left(self.order, (former, member))]
        self.scores[member] = score
        insort(self.order, (score, member))
        return former is None

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        del self.order[bisect_left(self.order, (score, member))]
        return True


@dataclass
class Stream:
    """Entries by id."""

    entries: list[tuple[StreamId, list[bytes]]] = field(default_factory=list)
    last: StreamId = (0, 0)

    def add(self, entry: StreamId, fields: list[bytes]) -> None:
        """Append. Raises CommandError where the id does not ascend."""
        if entry <= self.last:
            raise CommandError(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item"
                if entry > (0, 0)
                else "ERR The ID specified in XADD must be greater than 0-0"
            )
        self.entries.append((entry, fields))
        self.last = entry

    def remove(self, entry: StreamId) -> bool:
        """Whether it was there."""
        for place, (found, _) in enumerate(self.entries):
            if found == entry:
                del self.entries[place]
                return True
        return False

    def between(self, low: StreamId, high: StreamId) -> Iterator[tuple[StreamId, list[bytes]]]:
        """Those from `low` to `high`, both included."""
        return ((entry, fields) for entry, fields in self.entries if low <= entry <= high)


class Hash(dict[bytes, bytes]):
    """Values by field."""

    def __init__(self, values: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        super().__init__(values)
        self.deadlines: dict[bytes, int] = {}
        """By field, of those that have one."""

    def drop(self, name: bytes) -> None:
        """Without a field that is there."""
        del self[name]
        self.deadlines.pop(name, None)


Value = bytes | Hash | SortedSet | Stream


def type_name(value: Value) -> bytes:
    """As TYPE says."""
    if isinstance(value, bytes):
        return b"string"
    if isinstance(value, Hash):
        return b"hash"
    return b"zset" if isinstance(value, SortedSet) else b"stream"


def clone(value: Value) -> Value:
    """The same, which does not change with it."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Hash):
        same = Hash(value)
        same.deadlines.update(value.deadlines)
        return same
    if isinstance(value, Stream):
        return Stream(list(value.entries), value.last)
    return copy.deepcopy(value)


def number(value: float) -> bytes:
    """As Redis writes a number: 17 digits, and no point where it is whole."""
    if value in {float("inf"), float("-inf")}:
        return b"inf" if value > 0 else b"-inf"
    if value == int(value) and abs(value) < 1e17:
        return b"%d" % int(value)
    return b"%.17g" % value
