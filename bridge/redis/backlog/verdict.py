"""The verdict on a gap: which of the deletions in its journal were expirations.

Redis counts what it expires, and the journal holds all deletions that may be expirations. What is certain of each:

* *expired*: its deadline was past before the gap began, or the former epoch has claimed it, or it is a canary;
* *deleted*: it had no deadline, or one that was not past yet; or the former epoch has heard it, and not claimed it;
* *doubtful*: its deadline lies within the gap; or the key is not the ledger's, and its deadline is not known.

Redis's count then decides about the doubtful ones: none, all, or some have expired; which ones is not known. A key of
the ledger without an entry had no TTL: the former epoch had handled everything notified before the place. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from bridge.redis.backlog.journal import Happened, Journal, Key, Origin, Unfillable
from bridge.redis.protocol.anchor import Anchor, Measured
from bridge.redis.protocol.own_keys import is_of_a_bridge


class Sort(Enum):
    """What is known of a deletion."""

    EXPIRED = auto()
    DELETED = auto()
    DOUBTFUL = auto()
    """The deletion of a key of the ledger."""
    FOREIGN = auto()
    """The same for another key: it is never announced, but Redis counts it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the journal."""

    anchor: Anchor
    now: Measured
    """Just before the journal's last mark."""
    matches: Callable[[Key], bool]
    """Whether a key is the ledger's."""
    scores: Mapping[bytes, int | None]
    """The ledger's entries now: of `unknown`, at least."""
    claims: Sequence[tuple[bytes, int | None]]
    """Keys and deadlines of what the former epoch has claimed behind the anchor, for it was notified."""
    place_mark: bytes = b""
    """What stands before it was handled."""
    ahead: Collection[bytes] = ()
    """Keys that were ahead behind the place's mark: their expirations may have been held, and not claimed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """See the module."""

    expired: Mapping[int, bool]
    """The journal's entries that count as expirations; whether that is certain of each."""
    excess: int
    """How many of them are deletions of the ledger's keys."""
    surplus: int
    """How many are deletions of other keys, which are not announced."""
    claimed: Collection[int] = ()
    """Those that the former epoch has claimed."""


def unknown(journal: Journal) -> list[bytes]:
    """Keys of the ledger's database whose deadline has to be looked up, as it was set before the journal begins."""
    names = dict.fromkeys(
        name
        for entry in journal.entries
        if entry.what is Happened.ENDED and isinstance(entry.deadline, Origin)
        for db, name in (entry.deadline.key, entry.key)
        if db == journal.names.db
    )
    return list(names)


def judge(journal: Journal, facts: Facts) -> Verdict:
    """Raises Unfillable where Redis's counters do not fit, or do not tell enough."""
    count = expired_between(facts.anchor.measured, facts.now)
    bounds = _resolved(journal, facts)
    # What the former epoch has claimed may also have been notified before the anchor, in an earlier life of the key:
    # so it counts only where the rest does not decide.
    maybe = {key for key, _ in facts.claims}
    with suppress(Unfillable):
        verdict = _decided(count, {at: _sort(journal, at, bounds[at], facts, maybe) for at in bounds})
        if not verdict.excess and not verdict.surplus:
            return verdict
    claimed = _claimed(journal, facts)
    place = index_of(journal, facts.place_mark)
    handled = max(place, *claimed, -1)
    sorts = dict[int, Sort]()
    for at, entry in enumerate(journal.entries):
        if at in bounds:
            sorts[at] = Sort.EXPIRED if at in claimed else _sort(journal, at, bounds[at], facts)
            claims_all = at < place or (at < handled and entry.key[1] not in facts.ahead)
            if claims_all and sorts[at] is Sort.DOUBTFUL:
                sorts[at] = Sort.DELETED
    return _decided(count, sorts, claimed)


def _decided(count: int, sorts: Mapping[int, Sort], claimed: Collection[int] = ()) -> Verdict:
    """What follows if Redis has expired `count` keys. Raises Unfillable."""
    number = Counter(sorts.values())
    doubtful, foreign = number[Sort.DOUBTFUL], number[Sort.FOREIGN]
    left = count - number[Sort.EXPIRED]
    if not 0 <= left <= doubtful + foreign:
        first, last = number[Sort.EXPIRED], number[Sort.EXPIRED] + doubtful + foreign
        raise Unfillable(f"Redis counts {count} expirations, and the stream holds {first} to {last}")
    fewest, most = max(left - foreign, 0), min(left, doubtful)
    if fewest not in {most, doubtful} and most > 0:
        raise Unfillable(f"of {doubtful} deletions {fewest} to {most} may be expirations: other keys' look the same")
    ours = fewest if most else 0
    expired = {index: True for index, sort in sorts.items() if sort is Sort.EXPIRED}
    excess = surplus = 0
    if ours:
        excess = doubtful - ours
        expired |= {index: not excess for index, sort in sorts.items() if sort is Sort.DOUBTFUL}
    if left > ours:
        surplus = foreign - (left - ours)
        expired |= {index: not surplus for index, sort in sorts.items() if sort is Sort.FOREIGN}
    return Verdict(expired, excess, surplus, claimed)


def expired_between(before: Measured, now: Measured) -> int:
    """How many keys Redis has expired between two moments. Raises Unfillable if that is unknown."""
    if before.run_id != now.run_id:
        raise Unfillable("Redis was started again, or is another server: its counters began anew")
    grown = zip(
        (before.expired, before.evicted, *before.growing), (now.expired, now.evicted, *now.growing), strict=True
    )
    if any(later < earlier for earlier, later in grown):
        raise Unfillable("Redis's counters began anew")
    if now.evicted != before.evicted:
        raise Unfillable("Redis has evicted keys: that looks like an expiration")
    return now.expired - before.expired


def _resolved(journal: Journal, facts: Facts) -> dict[int, int]:
    """Look up deadlines that are not in the journal. Returns the latest possible time of each deletion, by index."""
    latest, bounds = facts.now.now_ms + 1, dict[int, int]()
    later_sets = defaultdict[Key, set[int]](set)
    start = facts.anchor.measured.now_ms
    # Backwards: a deadline that was set later was not past then, so what came before was not later than that.
    for index in range(len(journal.entries) - 1, -1, -1):
        entry = journal.entries[index]
        if entry.what is Happened.ENDED:
            bounds[index] = latest
            if isinstance(entry.deadline, Origin):
                entry.deadline = _looked_up(entry.deadline.key, entry.key, facts, later_sets) or entry.deadline
        elif entry.what is Happened.SET and isinstance(entry.deadline, int):
            later_sets[entry.key].add(entry.deadline)
            if entry.deadline > start:
                latest = min(latest, entry.deadline)
    return bounds


def index_of(journal: Journal, mark: bytes) -> int:
    """The index of that mark; -1 if it is not there."""
    return next((at for at, one in enumerate(journal.entries) if one.key[1] == mark and one.what is Happened.MARK), -1)


def _claimed(journal: Journal, facts: Facts) -> set[int]:
    """Which of the deletions the former epoch has claimed. It has handled everything before them."""
    claims = defaultdict[bytes, list[int | None]](list)
    for key, deadline in facts.claims:
        claims[key].append(deadline)
    found = set[int]()
    for index, entry in enumerate(journal.entries):
        if entry.what is Happened.ENDED and facts.matches(entry.key) and entry.deadline is not None:
            waiting = claims.get(entry.key[1], [])
            known = None if isinstance(entry.deadline, Origin) else entry.deadline
            for deadline in (known, None) if known is not None else waiting[:1]:
                if deadline in waiting:
                    waiting.remove(deadline)
                    found.add(index)
                    break
    return found


def _looked_up(origin: Key, key: Key, facts: Facts, later_sets: Mapping[Key, set[int]]) -> int | None:
    """The deadline of a key before the journal begins; None if the ledger does not say."""
    for one in (origin, key):
        score = facts.scores.get(one[1]) if facts.matches(one) else None
        if score is not None and score not in later_sets.get(one, ()):
            return score
    return None


def _sort(journal: Journal, index: int, latest: int, facts: Facts, maybe: Collection[bytes] = ()) -> Sort:
    """`maybe`: keys of which an expiration was claimed, perhaps this one."""
    entry = journal.entries[index]
    name, deadline = entry.key[1], entry.deadline
    if is_canary(name):
        return Sort.EXPIRED
    ours = facts.matches(entry.key)
    if isinstance(deadline, int):
        if deadline < facts.anchor.measured.now_ms:
            return Sort.EXPIRED
        never = deadline >= latest - 1
    else:
        own = name.startswith(journal.names.own_prefix) or is_of_a_bridge(name)
        never = deadline is None or own or (ours and name not in maybe)
    return Sort.DELETED if never else Sort.DOUBTFUL if ours else Sort.FOREIGN


def is_canary(name: bytes) -> bool:
    """Whether it is a bridge's canary. Bridges delete theirs together with another key, which shows the difference."""
    return name.startswith(b"{") and name.endswith(b"}:canary")
