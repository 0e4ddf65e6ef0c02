"""What a run has left, read: messages by key, gap records, and the book that both are held against."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.book import Book
from tests.simulation.broker import Stored
from tests.simulation.lives import Life


@dataclass(eq=False, slots=True)
class Told:
    """What one id says; of several copies the first."""

    id: str
    key: bytes
    deadline: int | None
    observed: int
    sweep: bool
    copies: int = 1
    value: bytes | None = None
    exact: bool = False
    """Whether that is said to be the last value."""


@dataclass(eq=False, slots=True)
class FieldTold:
    """Likewise, of a field."""

    id: str
    key: bytes
    field: bytes
    deadline: int
    observed: int
    sweep: bool
    copies: int = 1


@dataclass(eq=False, slots=True)
class GapSpan:
    """A gap record."""

    opened: int
    closed: int
    missed: int | None
    recovered: int
    ambiguous: int
    cause: str
    shard: int


@dataclass
class Evidence:
    """All that a run has left."""

    book: Book
    stored: Sequence[Stored]
    kind: str
    """Of the broker."""
    excused: list[tuple[int, int]]
    """Spans, in Redis's ms, in which Redis itself has lost something: nothing is promised of what lies in them."""
    audited: bool = True
    """Whether bridges could compare what they heard with what Redis counts."""
    told: dict[bytes, list[Told]] = field(default_factory=lambda: defaultdict(list))
    valued: list[Told] = field(default_factory=list)
    """Messages with a value, copies among them."""
    fields: dict[str, FieldTold] = field(default_factory=dict)
    """By id."""
    gaps: list[GapSpan] = field(default_factory=list)
    lost: list[tuple[Life, list[GapSpan]]] = field(default_factory=list)
    swept: list[tuple[Life, list[GapSpan]]] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)

    def around(self, life: Life, until: int) -> list[GapSpan]:
        """Its shard's gaps that overlap the span that begins with its end. The first one begins with the first bridge,
        whatever it says.
        """  # noqa: D205 - one paragraph
        shard = self.book.shard(life.key).names.shard
        gaps = [gap for gap in self.gaps if gap.shard == shard]
        if gaps and until < gaps[0].opened:
            return gaps[:1]
        return [gap for gap in gaps if gap.opened <= until and life.ended_ms <= gap.closed]

    def excuse(self, since: int, until: int) -> bool:
        """Whether something was lost by Redis in that span."""
        return any(begun <= until and since <= ended for begun, ended in self.excused)


def evidence(book: Book, stored: Sequence[Stored], kind: str, excused: list[tuple[int, int]]) -> Evidence:
    """Read the stream."""
    found = Evidence(book, stored, kind, excused)
    known: dict[str, Told] = {}
    gaps: dict[str, GapSpan] = {}
    for message in stored:
        data = json.loads(message.body)["data"]
        if message.gap:
            gaps.setdefault(
                message.id,
                GapSpan(
                    data["opened_ms"],
                    data["closed_ms"],
                    data["missed"],
                    data["recovered"],
                    data["ambiguous"],
                    data["cause"],
                    next((shard.hints.shard for shard in book.shards if message.id in shard.hints.gaps), 0),
                ),
            )
            continue
        if "field" in data:
            _add_field(found, message.id, data)
            continue
        told = Told(message.id, data["key"].encode(), data["deadline_ms"], data["observed_ms"], data["via"] == "sweep")
        if data.get("value") is not None:
            told.value, told.exact = data["value"].encode(), data["value_exact"]
            found.valued.append(told)
        former = known.setdefault(message.id, told)
        if former is told:
            found.told[told.key].append(told)
        else:
            former.copies += 1
            same = (former.key, former.deadline, former.observed) == (told.key, told.deadline, told.observed)
            if not same and not found.excuse(former.observed, told.observed):
                found.contradictions.append(f"{message.id[:8]} is {former} and {told}")
    found.gaps = sorted(gaps.values(), key=lambda gap: (gap.opened, gap.closed))
    return found


def _add_field(found: Evidence, number: str, data: Mapping[str, Any]) -> None:
    told = FieldTold(
        number,
        data["key"].encode(),
        data["field"].encode(),
        data["deadline_ms"],
        data["observed_ms"],
        data["via"] == "sweep",
    )
    former = found.fields.setdefault(number, told)
    if former is not told:
        former.copies += 1
        same = (former.key, former.field, former.deadline) == (told.key, told.field, told.deadline)
        if not same or (former.observed != told.observed and not found.excuse(former.observed, told.observed)):
            found.contradictions.append(f"{number[:8]} is {former} and {told}")
