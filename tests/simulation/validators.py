"""The promise, sentence by sentence: what was announced, held against the book. See `deploy/docs/guarantees.md`.

Each validator has the name of its sentence and returns what contradicts it. They know Redis's side exactly, so they
allow only what the promise allows: what a gap record counts, and what Redis itself has lost.
"""

from collections.abc import Callable, Sequence

from tests.simulation.broker import ONCE
from tests.simulation.evidence import Evidence, FieldTold, GapSpan, Told
from tests.simulation.field_validators import (
    an_expiration_of_a_hash_field_is_announced_once_or_counted,
    no_expiration_of_a_hash_field_is_announced_that_is_known_to_be_none,
)
from tests.simulation.lives import Fate, Life, Promise


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
            found.swept += [(life, found.around(life, one.observed)) for life in told]
        else:
            told = found.book.shard(key).hints.told.get(one.id, [])
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
    elif found.excuse(life.ended_ms, life.ended_ms) or _unknown(found, life):
        pass
    elif told is None:
        found.uncovered.append(f"{life} is not announced, and no gap covers it: {found.told.get(life.key)}")
    elif life.promise is Promise.RECORDED and not where and told.deadline != life.deadline:
        found.uncovered.append(f"{life} is announced without its deadline: {told}")


def _unknown(found: Evidence, life: Life) -> bool:
    """Whether it was muted, and cannot be known: it has no entry, there is no audit, and no mark was missed."""
    unnoticed = not life.notified and life.epoch not in found.book.noticed
    return unnoticed and not found.audited and (life.back_ms is not None or life.promise is not Promise.RECORDED)


def _swept(found: Evidence, told: Told, lives: Sequence[Life]) -> list[Life]:
    """The expirations that a sweep may tell of: what became of the lives that had the deadline; the likeliest first.

    A key may have had the deadline twice. The sweep claims an entry: so it rather tells of the life that ended with it.
    """
    ends = [found.book.became(life) for life in lives if life.deadline == told.deadline]
    ends = [life for life in ends if life.fate is Fate.EXPIRED and life.ended_ms <= told.observed]
    return sorted(ends, key=lambda life: (life.deadline != told.deadline, life.entry != told.deadline, life.number))


def _where(found: Evidence, life: Life) -> list[GapSpan]:
    """In which gaps it may have been lost; none if it has to be announced."""
    if life.promise is Promise.RECORDED and (life.back_ms is None or life.sure):
        return []
    return found.around(life, life.ended_ms)


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
                not end.notified or any(told.deadline <= gap.closed for gap in found.around(end, end.ended_ms))
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
        elsewhere = [*found.book.elsewhere, *(life.ended_ms for life in _of_other_shards(found, run[0].shard))]
        others = sum(run[0].opened <= moment <= run[-1].closed for moment in elsewhere)
        missed = sum(gap.missed or 0 for gap in run)
        if not len(lost) <= missed <= len(lost) + others:
            problems.append(f"{len(lost)} lost or swept, {missed} missed, {others} elsewhere: {lost} in {run}")
    return problems


def _of_other_shards(found: Evidence, shard: int) -> list[Life]:
    """Lives that have expired: whoever works on that shard only counts them."""
    others = [lives for key, lives in found.book.lives.items() if found.book.shard(key).names.shard != shard]
    return [life for lives in others for life in lives if life.fate is Fate.EXPIRED]


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
    return [f"stored twice: {told}" for told in _messages(found) if told.copies > 1]


def _messages(found: Evidence) -> list[Told | FieldTold]:
    """Of keys and of fields."""
    return [*(told for messages in found.told.values() for told in messages), *found.fields.values()]


def each_id_is_stored_once_where_that_is_asked_for(found: Evidence) -> list[str]:
    """By a stream with a message for each subject, by transactions, or by a Redis."""
    if found.kind not in ONCE:
        return []
    copied = [told for told in _messages(found) if told.copies > 1]
    return [f"stored twice: {told}" for told in copied if not found.excuse(told.observed, told.observed)]


def an_exact_value_is_never_wrong(found: Evidence) -> list[str]:
    """It is the last one of the life that has expired. And any value is one that the key had with that deadline."""
    problems = []
    for told in found.valued:
        lives = [life for life in found.book.lives.get(told.key, []) if life.deadline == told.deadline]
        ends = [life for life in found.book.shard(told.key).hints.told.get(told.id, []) if life in lives] or lives
        if told.exact and (told.sweep or told.value not in [life.values[-1] for life in ends if life.values]):
            problems.append(f"{told} is not the last value of {ends}")
        elif not any(told.value in life.values for life in lives):
            problems.append(f"{told} was not a value of {lives}")
    return problems


IS_DELIVERED = "what_is_recorded_is_delivered_when_all_is_well_again"
ON_TIME = "on_time"
NO_GAP = "while_a_standby_listens_the_death_of_a_bridge_opens_no_gap"
IS_RELIEVED = "a_login_that_ends_or_is_replaced_opens_no_gap"
NO_PROCESS_ENDS = "no_process_ends_by_itself"
NO_ERROR_UNNOTICED = "no_error_goes_unnoticed"
NO_KEYS_IN_LOGS = "no_log_line_holds_a_users_key"
COMES_TO_ITS_END = "the_run_comes_to_its_end"
WHILE_IT_RUNS = (
    IS_DELIVERED,
    ON_TIME,
    NO_GAP,
    IS_RELIEVED,
    NO_PROCESS_ENDS,
    NO_ERROR_UNNOTICED,
    NO_KEYS_IN_LOGS,
    COMES_TO_ITS_END,
)
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
    each_id_is_stored_once_where_that_is_asked_for,
    an_exact_value_is_never_wrong,
    an_expiration_of_a_hash_field_is_announced_once_or_counted,
    no_expiration_of_a_hash_field_is_announced_that_is_known_to_be_none,
)


def judge(found: Evidence) -> dict[str, list[str]]:
    """Which sentences are contradicted, by what."""
    match(found)
    return {validator.__name__: said for validator in VALIDATORS if (said := validator(found))}
