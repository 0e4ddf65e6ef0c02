"""What was announced, held against the book: `judge(book, stored, gaps)`.

Every expiration has to be announced, and nothing else, except for what the protocol does not promise
(`bridge/redis/PROTOCOL.md`), and that only within gaps, and only as much as their records count:

* A life that was recorded and never touched again is announced with its deadline, whatever happened.
* So is one that was touched after it expired, unless a gap lay between: the key was back before anybody looked.
* One that was not recorded is announced, perhaps without its deadline or with that of a former life (its notification
  *stands for* it), unless it expired in a gap.
* One that the writer ended is not announced, unless it was ended in a gap and swept in it: nobody could tell.
* Each loss lies in a gap, and the records count it: of recorded lives as `ambiguous`; of all, together with what was
  found by a sweep, as `missed`, where that is known.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.book import LEEWAY_MS, Book, History, Life
from tests.deployment import Stored
from tests.integration.test_journey import id_of_deadline

Record = Mapping[str, Any]
"""The data of a gap record."""

DUPLICATE_WINDOW_MS = 120_000
"""Of JetStream: a copy within it is not stored."""
LATE_MS = 12_000
"""How late a notification may be handled: later than by any fault, be it a frozen bridge whose lease nobody takes."""
COUNTED = (
    "lives",
    "doubtful lives",
    "expirations",
    "expirations that were recorded",
    "expirations in gaps",
    "announced",
    "announced by another deadline, or none",
    "ended in a gap, and announced",
    "copies",
    "lost in gaps",
    "lost in gaps without missed",
    "gaps",
    "gaps without missed",
    "missed",
    "recovered",
    "ambiguous",
)


@dataclass
class Verdict:
    """What `judge` found."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTED, 0)))


def judge(book: Book, stored: Sequence[Stored], gaps: Sequence[Record], *, may_copy: bool) -> Verdict:
    """Hold what was stored, in the broker's order, and the gap records against the book."""
    judge_ = _Judge(sorted(gaps, key=lambda gap: (gap["opened_ms"], gap["closed_ms"])))
    first = judge_.ids(stored, may_copy=may_copy)
    messages: dict[str, list[Stored]] = defaultdict(list)
    for message in first:
        messages[message.key].append(message)
    for key in messages.keys() - book.histories.keys():
        judge_.violation("a key that nobody ever set", messages[key])
    for key, history in book.histories.items():
        judge_.key(history, messages[key])
    judge_.balance()
    judge_.verdict.violations += book.surprises
    judge_.verdict.counts["gaps"] = len(gaps)
    for name in ("missed", "recovered", "ambiguous"):
        judge_.verdict.counts[name] = sum(gap[name] or 0 for gap in gaps)
    judge_.verdict.counts["gaps without missed"] = sum(gap["missed"] is None for gap in gaps)
    return judge_.verdict


class _Judge:
    def __init__(self, gaps: Sequence[Record]) -> None:
        self.verdict = Verdict()
        self._gaps = gaps
        # Both ascend: a gap opens where the one before it was about to close.
        self._opened = [gap["opened_ms"] for gap in gaps]
        self._closed = [gap["closed_ms"] for gap in gaps]
        self._lost: list[tuple[range, Life]] = []
        self._swept: list[range] = []

    def violation(self, what: str, *about: object) -> None:
        """Note it."""
        self.verdict.violations.append("\n  ".join([what, *map(str, about)]))

    # What can be told without the book.

    def ids(self, stored: Sequence[Stored], *, may_copy: bool) -> list[Stored]:
        """Of each id the first message; copies have to be what they are copies of, and only where they may be."""
        first: dict[str, Stored] = {}
        for message in stored:
            known = first.setdefault(message.id, message)
            if known is message:
                continue
            self.verdict.counts["copies"] += 1
            if _content(known) != _content(message):
                self.violation("one id for two occurrences", known, message)
            if not may_copy and message.stored_ms - known.stored_ms < DUPLICATE_WINDOW_MS:
                self.violation("stored twice", known, message)
        for message in first.values():
            if message.deadline_ms is None:
                continue
            if message.id != id_of_deadline(message.key.encode(), message.deadline_ms):
                self.violation("not the id of this key and deadline", message)
            if message.observed_ms <= message.deadline_ms:
                self.violation("announced before its deadline was past", message)
        return list(first.values())

    def _order(self, messages: Sequence[Stored]) -> None:
        deadlines = [message.deadline_ms for message in messages if message.deadline_ms is not None]
        if any(later <= earlier for earlier, later in pairwise(deadlines)) or any(
            later.observed_ms < earlier.observed_ms for earlier, later in pairwise(messages)
        ):
            self.violation("out of order", *messages)

    # One key.

    def key(self, history: History, messages: Sequence[Stored]) -> None:
        """What was announced of it."""
        counts = self.verdict.counts
        counts["lives"] += len(history.lives)
        counts["announced"] += len(messages)
        self._order(messages)
        if history.doubtful:
            counts["doubtful lives"] += len(history.lives)
            if len(messages) > len(history.lives) + history.doubtful:
                self.violation("announced too often", history, *messages)
            return
        missing, unmatched = self._match(history, messages)
        for life in self._stand_for(history, unmatched, missing):
            what = "lost, though it was recorded" if life.recorded else "lost outside of all gaps"
            self.violation(what, life, history, *messages, *self._near(life.deadline_ms))

    def _match(self, history: History, messages: Sequence[Stored]) -> tuple[list[Life], list[Stored]]:
        """The expirations that were not announced with their deadline, and the messages that announce no such one."""
        counts = self.verdict.counts
        by_deadline = {message.deadline_ms: message for message in messages if message.deadline_ms is not None}
        missing: list[Life] = []
        unmatched = dict.fromkeys(sorted(messages, key=lambda message: message.observed_ms))
        for life in history.lives:
            if life.found_gone_ms is None:
                continue
            counts["expirations"] += 1
            counts["expirations that were recorded"] += life.recorded
            counts["expirations in gaps"] += bool(self._between(life.deadline_ms, life.found_gone_ms))
            message = by_deadline.get(life.deadline_ms)
            if message is None:
                missing.append(life)
                continue
            del unmatched[message]
            if message.via == "sweep":
                self._swept.append(self._between(life.deadline_ms, message.observed_ms))
        for deadline_ms in by_deadline.keys() - {life.deadline_ms for life in history.lives}:
            self.violation("a deadline that the key never had", by_deadline[deadline_ms], history)
        return missing, list(unmatched)

    def _stand_for(self, history: History, unmatched: Sequence[Stored], missing: Sequence[Life]) -> list[Life]:
        """Find for each expiration that is missing a message that may stand for it: first for those that have to have
        one, then for the latest. Notes what was lost in gaps; returns what was lost and cannot have been.
        """  # noqa: D205 - one sentence
        messages, meant = list(unmatched), dict[Stored, Life]()
        lost: list[Life] = []
        for life in sorted(missing, key=lambda life: (bool(self._where_lost(life)), -life.deadline_ms)):
            # Where it was recorded and has to be announced, it has to be so with its deadline.
            exact = life.recorded and not self._where_lost(life)
            message = next((message for message in messages if not exact and _may_mean(message, life)), None)
            if message is None:
                lost.append(life)
            else:
                messages.remove(message)
                meant[message] = life
        self.verdict.counts["announced by another deadline, or none"] += len(meant)
        self._explain(history, messages)
        for life in lost:
            if where := self._where_lost(life):
                # A message may stand for this one instead: then it is the other one that was lost.
                others = [self._where_lost(other) for message, other in meant.items() if _may_mean(message, life)]
                self._lost.append((_hull([where, *filter(None, others)]), life))
        self.verdict.counts["lost in gaps"] += sum(bool(self._where_lost(life)) for life in lost)
        return [life for life in lost if not self._where_lost(life)]

    def _explain(self, history: History, messages: Sequence[Stored]) -> None:
        """What stands for no expiration: a life that the writer ended in a gap may have been taken for expired."""
        ended = {life.deadline_ms: life for life in history.lives if life.ended_ms is not None}
        for message in messages:
            life = ended.get(message.deadline_ms or 0)
            if life is not None and message.via == "sweep" and self._ended_in_gap(life):
                self.verdict.counts["ended in a gap, and announced"] += 1
            else:
                self.violation("announced, and did not expire", message, history, *self._near(message.observed_ms))

    # Gaps.

    def _between(self, from_ms: int, until_ms: int) -> range:
        """Which gaps (by their numbers) overlap that span; empty if none does."""
        first = bisect_left(self._closed, from_ms - LEEWAY_MS)
        return range(first, max(first, bisect_right(self._opened, until_ms + LEEWAY_MS)))

    def _where_lost(self, life: Life) -> range:
        """In which gaps an expiration may have been lost; empty if it has to be announced."""
        until_ms = life.back_ms if life.recorded else life.found_gone_ms
        return range(0) if until_ms is None else self._between(life.deadline_ms, until_ms)

    def _ended_in_gap(self, life: Life) -> bool:
        """Whether a gap may have hidden from the bridge that it was ended, and it was due before that closed."""
        assert life.ended_ms is not None
        return any(
            life.deadline_ms <= self._gaps[number]["closed_ms"] + LEEWAY_MS
            for number in self._between(life.ended_ms, life.endless_until_ms or life.ended_ms)
        )

    def _near(self, moment_ms: int) -> list[Record]:
        """The gaps around it, for the reader of a violation."""
        return [self._gaps[number] for number in self._between(moment_ms - 5_000, moment_ms + 5_000)]

    def balance(self) -> None:
        """Hold the losses against the records. Gaps that one of them may be in are counted together."""
        for gaps in self._together():
            lost = [life for where, life in self._lost if where[0] in gaps]
            swept = sum(bool(where) and where[0] in gaps for where in self._swept)
            records = [self._gaps[number] for number in gaps]
            ambiguous = sum(record["ambiguous"] for record in records)
            if (recorded := sum(life.recorded for life in lost)) > ambiguous:
                what = f"{recorded} recorded ones lost, but only {ambiguous} ambiguous"
                self.violation(what, *records, *(life for life in lost if life.recorded))
            if any(record["missed"] is None for record in records):
                self.verdict.counts["lost in gaps without missed"] += len(lost)
            elif (missed := sum(record["missed"] for record in records)) < len(lost) + swept:
                what = f"{len(lost)} lost and {swept} swept, but only {missed} missed"
                self.violation(what, *records, *lost)

    def _together(self) -> list[range]:
        """Runs of gaps, such that whatever may be in one of a run can only be in that run."""
        spans = sorted((where[0], where[-1]) for where in [*(where for where, _ in self._lost), *self._swept] if where)
        runs: list[range] = []
        for start, last in spans:
            if runs and start in runs[-1]:
                runs[-1] = range(runs[-1][0], max(runs[-1][-1], last) + 1)
            else:
                runs.append(range(start, last + 1))
        return runs


def _hull(spans: Sequence[range]) -> range:
    """All gaps from the first to the last of these."""
    return range(min(span[0] for span in spans), max(span[-1] for span in spans) + 1)


def _may_mean(message: Stored, life: Life) -> bool:
    """Whether the notification of that expiration may have led to the message: it came behind, and not very late."""
    assert life.found_gone_ms is not None
    return life.deadline_ms - LEEWAY_MS <= message.observed_ms <= life.found_gone_ms + LATE_MS


def _content(message: Stored) -> tuple[object, ...]:
    return message.key, message.deadline_ms, message.observed_ms, message.via
