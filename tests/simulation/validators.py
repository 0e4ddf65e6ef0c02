"""The promise, sentence by sentence: what was announced, held against the book. See `deploy/docs/guarantees.md`.

Each validator has the name of its sentence and returns what contradicts it. They know Redis's side exactly, so they
allow only what the promise allows: what a gap record counts, and what Redis itself has lost.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.simulation.book import Book, Fate, Life, Promise
from tests.simulation.broker import Stored


@dataclass(eq=False, slots=True)
class Told:
    """What one id says; of several copies the first."""

    id: str
    key: bytes
    deadline: int | None
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


@dataclass
class Evidence:
    """All that a run has left."""

    book: Book
    stored: Sequence[Stored]
    kind: str
    """Of the broker."""
    excused: list[tuple[int, int]]
    """Spans, in Redis's ms, in which Redis itself has lost something: nothing is promised of what lies in them."""
    told: dict[bytes, list[Told]] = field(default_factory=lambda: defaultdict(list))
    gaps: list[GapSpan] = field(default_factory=list)
    lost: list[tuple[Life, list[GapSpan]]] = field(default_factory=list)
    swept: list[tuple[Life, list[GapSpan]]] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)

    def around(self, since: int, until: int) -> list[GapSpan]:
        """The gaps that overlap that span. The first one begins with the first bridge, whatever it says."""
        if self.gaps and until < self.gaps[0].opened:
            return self.gaps[:1]
        return [gap for gap in self.gaps if gap.opened <= until and since <= gap.closed]

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
                ),
            )
            continue
        told = Told(message.id, data["key"].encode(), data["deadline_ms"], data["observed_ms"], data["via"] == "sweep")
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


def match(found: Evidence) -> None:
    """Find out which message tells of which expiration."""
    for key in sorted({*found.told, *found.book.lives}):
        _match_key(found, key)


def _match_key(found: Evidence, key: bytes) -> None:
    lives = found.book.lives.get(key, [])
    of: dict[Life, Told] = {}
    for one in sorted(found.told.get(key, []), key=lambda told: (told.sweep, told.observed)):
        if one.sweep:
            told = [life for life in _swept(found, one, lives) if life not in of][:1]
            found.swept += [(life, found.around(life.ended_ms, one.observed)) for life in told]
        else:
            told = found.book.hints.told.get(one.id, [])
        if len(told) != 1 and not _explained(found, one, lives):
            found.unexplained.append(f"{one} tells of {told}: {lives}")
        of |= dict.fromkeys(told, one)
    for life in lives:
        if life.fate is Fate.EXPIRED:
            _judge(found, life, of.get(life))


def _judge(found: Evidence, life: Life, told: Told | None) -> None:
    """Whether it is told as it has to be."""
    where = _where(found, life)
    if told is None and where:
        found.lost.append((life, where))
    elif found.excuse(life.ended_ms, life.ended_ms):
        pass
    elif told is None:
        found.uncovered.append(f"{life} is not announced, and no gap covers it: {found.told.get(life.key)}")
    elif life.promise is Promise.RECORDED and not where and told.deadline != life.deadline:
        found.uncovered.append(f"{life} is announced without its deadline: {told}")


def _swept(found: Evidence, told: Told, lives: Sequence[Life]) -> list[Life]:
    """The expirations that a sweep may tell of: what became of the lives that had the deadline; the likeliest first."""
    ends = [found.book.became(life) for life in lives if life.deadline == told.deadline]
    ends = [life for life in ends if life.fate is Fate.EXPIRED and life.ended_ms <= told.observed]
    return sorted(ends, key=lambda life: (life.deadline != told.deadline, life.number))


def _where(found: Evidence, life: Life) -> list[GapSpan]:
    """In which gaps it may have been lost; none if it has to be announced."""
    if life.promise is Promise.RECORDED and (life.back_ms is None or life.sure):
        return []
    return found.around(life.ended_ms, life.ended_ms)


def _explained(found: Evidence, told: Told, lives: Sequence[Life]) -> bool:
    """Whether a sweep tells of a life that was ended in a gap: it cannot be told from one that expired."""
    if found.excuse(told.observed - 1, told.observed + 1):
        return True
    if not told.sweep or told.deadline is None:
        return False
    for life in lives:
        if life.deadline == told.deadline:
            end = found.book.became(life)
            if end.fate is Fate.DELETED and (
                not end.notified or any(told.deadline <= gap.closed for gap in found.around(end.ended_ms, end.ended_ms))
            ):
                return True
    return False


# The sentences.


def every_expiration_of_a_recorded_key_reaches_the_broker_at_least_once(found: Evidence) -> list[str]:
    """…no matter which process crashes, or when. And what the ledger knows of a key it does not forget."""
    forgotten = [f"forgotten at {now}: {life}" for life, now in found.book.forgotten if not found.excuse(now, now)]
    return found.uncovered + forgotten


def with_the_same_id_each_time(found: Evidence) -> list[str]:
    """One expiration has one id, and no two share one."""
    return found.contradictions + found.unexplained


def what_the_bridge_cannot_know_it_counts_and_announces(found: Evidence) -> list[str]:
    """What was recorded and lost is counted as ambiguous, by the gap that it was lost in."""
    problems: list[str] = []
    for run in _runs([where for _, where in found.lost]):
        lost = [life for life, where in found.lost if any(gap in run for gap in where)]
        counted = sum(gap.ambiguous for gap in run)
        promised = [life for life in lost if life.promise is not Promise.NOTHING and not life.unaware]
        if len(promised) > counted and not found.excuse(run[0].opened, run[-1].closed):
            problems.append(f"{len(promised)} recorded ones lost, {counted} counted: {promised} in {run}")
    return problems


def what_is_missed_is_measured(found: Evidence) -> list[str]:
    """`missed` is how many notifications were not handled: of what was lost or swept, and of other databases."""
    problems: list[str] = []
    unheard = [*found.lost, *found.swept]
    for run in _runs([*(where for _, where in unheard if where), *([gap] for gap in found.gaps)]):
        if any(gap.missed is None for gap in run) or found.excuse(run[0].opened, run[-1].closed):
            continue
        lost = [life for life, where in unheard if any(gap in run for gap in where)]
        others = sum(run[0].opened <= moment <= run[-1].closed for moment in found.book.elsewhere)
        missed = sum(gap.missed or 0 for gap in run)
        if not len(lost) <= missed <= len(lost) + others:
            problems.append(f"{len(lost)} lost or swept, {missed} missed, {others} elsewhere: {lost} in {run}")
    return problems


def _runs(spans: Sequence[list[GapSpan]]) -> list[list[GapSpan]]:
    """Gaps that one loss may lie in are counted together."""
    runs: list[list[GapSpan]] = []
    for span in spans:
        together = [run for run in runs if any(gap in run for gap in span)]
        merged = list(dict.fromkeys([*(gap for run in together for gap in run), *span]))
        runs = [*(run for run in runs if run not in together), merged]
    return [sorted(run, key=lambda gap: gap.opened) for run in runs]


def users_keys_are_never_written(found: Evidence) -> list[str]:
    """Nor their deadlines changed."""
    return found.book.broken


def no_expiration_is_announced_before_its_deadline_is_past(found: Evidence) -> list[str]:
    """A deadline that is announced is one that the key had, and it is past."""
    problems = []
    for key, messages in found.told.items():
        had = {life.deadline for life in found.book.lives.get(key, [])}
        problems += [
            f"{told} has a deadline of {sorted(filter(None, had))}"
            for told in messages
            if told.deadline is not None and (told.deadline >= told.observed or told.deadline not in had)
        ]
    return problems


def messages_of_a_key_come_in_their_order(found: Evidence) -> list[str]:
    """First copies, that is: what is sent again may come again."""
    problems = []
    for messages in found.told.values():
        observed = [told.observed for told in messages]
        if observed != sorted(observed) and not found.excuse(min(observed), max(observed)):
            problems.append(f"out of order: {messages}")
    return problems


def copies_within_the_duplicate_window_are_dropped(found: Evidence) -> list[str]:
    """By JetStream."""
    if found.kind != "jetstream":
        return []
    return [f"stored twice: {told}" for messages in found.told.values() for told in messages if told.copies > 1]


IS_DELIVERED = "what_is_recorded_is_delivered_when_all_is_well_again"
ON_TIME = "on_time"
NO_GAP = "while_a_standby_listens_the_death_of_a_bridge_opens_no_gap"
NO_PROCESS_ENDS = "no_process_ends_by_itself"
NO_ERROR_UNNOTICED = "no_error_goes_unnoticed"
NO_KEYS_IN_LOGS = "no_log_line_holds_a_users_key"
COMES_TO_ITS_END = "the_run_comes_to_its_end"
WHILE_IT_RUNS = (IS_DELIVERED, ON_TIME, NO_GAP, NO_PROCESS_ENDS, NO_ERROR_UNNOTICED, NO_KEYS_IN_LOGS, COMES_TO_ITS_END)
"""Sentences that `world.py` looks after itself."""
VALIDATORS: Sequence[Callable[[Evidence], list[str]]] = (
    every_expiration_of_a_recorded_key_reaches_the_broker_at_least_once,
    with_the_same_id_each_time,
    what_the_bridge_cannot_know_it_counts_and_announces,
    what_is_missed_is_measured,
    users_keys_are_never_written,
    no_expiration_is_announced_before_its_deadline_is_past,
    messages_of_a_key_come_in_their_order,
    copies_within_the_duplicate_window_are_dropped,
)


def judge(found: Evidence) -> dict[str, list[str]]:
    """Which sentences are contradicted, by what."""
    match(found)
    return {validator.__name__: said for validator in VALIDATORS if (said := validator(found))}
