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

Where there are several ledgers, each place is judged by its own gaps. What has moved from one to another is judged by
all of them, its deadline may be somewhat later, and it counts as not recorded: it was on its way to another ledger.
While a primary becomes another one, or gets another ledger, an *upheaval*, one expiration may be announced twice, if
one of the two claims had no deadline; and what was changed on the new primary, or told to the new ledger, may be
announced by the former one, as if it had not been changed.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from tests.chaos.book import DRIFT_MS, LEEWAY_MS, Book, History, Life
from tests.chaos.ground import Ground, Record, Upheaval
from tests.support.contract import id_of_deadline
from tests.support.deployments.stored import StoredExpiration

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
    "announced once more in an upheaval",
    "moved lives",
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


def judge(
    book: Book,
    stored: Sequence[StoredExpiration],
    gaps: Sequence[Record],
    *,
    may_copy: bool,
    ground: Ground | None = None,
) -> Verdict:
    """Hold what was stored, in the broker's order, and the gap records against the book."""
    ground = ground or Ground()
    verdict = Verdict()
    anywhere = _Judge(verdict, gaps, ground.upheavals)
    messages: dict[str, list[StoredExpiration]] = defaultdict(list)
    for message in anywhere.ids(stored, may_copy=may_copy):
        messages[message.key].append(message)
    for key in messages.keys() - book.histories.keys():
        anywhere.violation("a key that nobody ever set", messages[key])
    where = [(gap, ground.places(gap)) for gap in gaps]
    judges: dict[str | None, _Judge] = {None: anywhere}
    for key, history in book.histories.items():
        place = ground.place(key)
        if place not in judges:
            here = [gap for gap, places in where if place in places]
            upheavals = [upheaval for upheaval in ground.upheavals if not upheaval.places or place in upheaval.places]
            judges[place] = _Judge(verdict, here, upheavals)
        judges[place].key(history, messages[key], moved=place is None)
    for place, judge_ in judges.items():
        if place is not None:  # a record counts what was missed where it was, wherever that went
            judge_.balance()
    verdict.violations += book.surprises
    verdict.counts["gaps"] = len(gaps)
    for name in ("missed", "recovered", "ambiguous"):
        verdict.counts[name] = sum(gap[name] or 0 for gap in gaps)
    verdict.counts["gaps without missed"] = sum(gap["missed"] is None for gap in gaps)
    return verdict


class _Judge:
    """Of one place, or of what was in several."""

    def __init__(self, verdict: Verdict, gaps: Sequence[Record], upheavals: Sequence[Upheaval]) -> None:
        self.verdict = verdict
        self._gaps = gaps = sorted(gaps, key=lambda gap: (gap["opened_ms"], gap["closed_ms"]))
        self._upheavals = upheavals
        # Both ascend. A gap opens where the one before it was about to close, but those of several places overlap.
        self._opened = [gap["opened_ms"] for gap in gaps]
        self._closed = list(accumulate((gap["closed_ms"] for gap in gaps), max))
        self._lost: list[tuple[range, Life]] = []
        self._swept: list[range] = []

    def violation(self, what: str, *about: object) -> None:
        """Note it."""
        self.verdict.violations.append("\n  ".join([what, *map(str, about)]))

    # What can be told without the book.

    def ids(self, stored: Sequence[StoredExpiration], *, may_copy: bool) -> list[StoredExpiration]:
        """Of each id the first message; copies have to be what they are copies of, and only where they may be."""
        first: dict[str, StoredExpiration] = {}
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

    def _order(self, messages: Sequence[StoredExpiration]) -> None:
        deadlines = [message.deadline_ms for message in messages if message.deadline_ms is not None]
        if any(later <= earlier for earlier, later in pairwise(deadlines)) or any(
            later.observed_ms < earlier.observed_ms for earlier, later in pairwise(messages)
        ):
            self.violation("out of order", *messages)

    # One key.

    def key(self, history: History, messages: Sequence[StoredExpiration], *, moved: bool) -> None:
        """What was announced of it."""
        counts = self.verdict.counts
        if moved:
            counts["moved lives"] += len(history.lives)
            for life in history.lives:
                life.recorded = False
        counts["lives"] += len(history.lives)
        counts["announced"] += len(messages)
        if not moved:  # else it is two bridges that tell of it, and one may be late; as in an upheaval
            self._order([message for message in messages if not self._in_upheaval(message.observed_ms)])
        if history.doubtful:
            counts["doubtful lives"] += len(history.lives)
            twice = sum(self._in_upheaval(message.observed_ms) for message in messages)
            if len(messages) > len(history.lives) + history.doubtful + twice:
                self.violation("announced too often", history, *messages)
            return
        missing, unmatched = self._match(history, messages, DRIFT_MS if moved else 0)
        for life in self._stand_for(history, unmatched, missing):
            what = "lost, though it was recorded" if life.recorded else "lost outside of all gaps"
            self.violation(what, life, history, *messages, *self._near(life.deadline_ms))

    def _match(
        self, history: History, messages: Sequence[StoredExpiration], drift_ms: int
    ) -> tuple[list[Life], dict[StoredExpiration, Life | None]]:
        """The expirations that were not announced with their deadline, and the messages that announce no such one, with
        the lives that their deadlines are of.
        """  # noqa: D205 - one sentence
        counts = self.verdict.counts
        announced: dict[Life, StoredExpiration] = {}
        unmatched: dict[StoredExpiration, Life | None] = {}
        for message in sorted(messages, key=lambda message: message.observed_ms):
            life = _life_of(message, history, drift_ms)
            if life is None and message.deadline_ms is not None:
                self.violation("a deadline that the key never had", message, history)
            if life is None or life.found_gone_ms is None or life in announced:
                unmatched[message] = life
            else:
                announced[life] = message
        missing: list[Life] = []
        for life in history.lives:
            if life.found_gone_ms is None:
                continue
            counts["expirations"] += 1
            counts["expirations that were recorded"] += life.recorded
            counts["expirations in gaps"] += bool(self._between(life.deadline_ms, life.found_gone_ms))
            if life not in announced:
                missing.append(life)
            elif announced[life].via == "sweep":
                self._swept.append(self._between(life.deadline_ms, announced[life].observed_ms))
        return missing, unmatched

    def _stand_for(
        self, history: History, unmatched: Mapping[StoredExpiration, Life | None], missing: Sequence[Life]
    ) -> list[Life]:
        """Find for each expiration that is missing a message that may stand for it: first for those that have to have
        one, then for the latest. Notes what was lost in gaps; returns what was lost and cannot have been.
        """  # noqa: D205 - one sentence
        messages, meant = list(unmatched), dict[StoredExpiration, Life]()
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
        self._explain(history, {message: unmatched[message] for message in messages})
        for life in lost:
            if where := self._where_lost(life):
                # A message may stand for this one instead: then it is the other one that was lost.
                others = [self._where_lost(other) for message, other in meant.items() if _may_mean(message, life)]
                self._lost.append((_hull([where, *filter(None, others)]), life))
        self.verdict.counts["lost in gaps"] += sum(bool(self._where_lost(life)) for life in lost)
        return [life for life in lost if not self._where_lost(life)]

    def _explain(self, history: History, messages: Mapping[StoredExpiration, Life | None]) -> None:
        """What stands for no expiration: a life that the writer ended in a gap may have been taken for expired."""
        for message, life in messages.items():
            ended = life is not None and life.ended_ms is not None
            if life is not None and ended and message.via == "sweep" and self._ended_in_gap(life):
                self.verdict.counts["ended in a gap, and announced"] += 1
            elif (ended or message.deadline_ms is None) and self._in_upheaval(message.observed_ms):
                self.verdict.counts["announced once more in an upheaval"] += 1
            else:
                self.violation("announced, and did not expire", message, history, *self._near(message.observed_ms))

    def _in_upheaval(self, moment_ms: int) -> bool:
        return any(upheaval.begun_ms <= moment_ms <= upheaval.ended_ms for upheaval in self._upheavals)

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


def _life_of(message: StoredExpiration, history: History, drift_ms: int) -> Life | None:
    """Which life the deadline of a message is of: exactly, or else the latest from which it may have drifted."""
    if message.deadline_ms is None:
        return None
    fitting = [life for life in history.lives if 0 <= message.deadline_ms - life.deadline_ms <= drift_ms]
    return max(fitting, key=lambda life: (life.deadline_ms, life.found_gone_ms is not None), default=None)


def _may_mean(message: StoredExpiration, life: Life) -> bool:
    """Whether the notification of that expiration may have led to the message: it came behind, and not very late."""
    assert life.found_gone_ms is not None
    return life.deadline_ms - LEEWAY_MS <= message.observed_ms <= life.found_gone_ms + LATE_MS


def _content(message: StoredExpiration) -> tuple[object, ...]:
    return message.key, message.deadline_ms, message.observed_ms, message.via
