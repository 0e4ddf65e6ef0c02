"""The bridge's scripts in the ledger model: `touch`, and `apply` (`apply.lua`, and `interpreter.py` of the protocol).

Each is one atomic step. Modelled: every operation but `f`, the keys that are ahead, marks, resolves, the count of a
gap. Not modelled: resolves that are spread over several batches (the same as a batch that ends just before the mark),
the lease and its fence (`delivery.py`), memory limits, the order of writes in a script.
"""

from collections.abc import Iterable, Sequence
from itertools import count

from tests.model.rules import Rules
from tests.model.server import read
from tests.model.world import (
    ALIVE,
    DELETED,
    FLUSHED,
    HANDLED,
    LATER,
    LOST,
    NO_TTL,
    SETTLED,
    UNSEEN,
    UNSENT,
    WAIVED,
    Hint,
    Life,
    Round,
    Seen,
    State,
    Violation,
    World,
)

_RANKS = {"x": 0, "d": 1, "p": 2, "ahead": 3, "touch": 4}


def apply(world: World, batch: Sequence[Hint], scanned: Iterable[int] = ()) -> None:
    """One batch of hints: in stream order, what appeared at the end, and once; then what it scans (`s`)."""
    if not world.rules.stream_order:
        batch = sorted(batch, key=lambda hint: _RANKS[hint.kind])
    appeared: dict[int, None] = {}
    for hint in batch:
        if hint.kind == "x":
            _expired(world, hint.key, hint.about)
        elif hint.kind == "d":
            _deleted(world, hint.key)
        elif hint.kind == "p":
            appeared[hint.key] = None
        elif hint.kind == "ahead":
            for key in hint.keys:
                world.ahead[key] -= 1
        elif world.round is not None:
            if world.rules.resolve_at_the_mark:
                resolve(world)
            else:
                world.round = world.round._replace(marked=True)
    observe(world, [*appeared, *scanned])


def observe(world: World, keys: Iterable[int]) -> None:
    """`p`, for keys that appeared or that a scan found; then the script ends."""
    if world.rules.read_and_write_in_one_script:
        for key in keys:
            _record(world, key, read(world, key))
    else:
        world.unwritten += tuple((key, read(world, key)) for key in keys)
    mark(world)


def write(world: World) -> None:
    """Write what a former script read."""
    for key, life in world.unwritten:
        _record(world, key, life)
    world.unwritten = ()
    mark(world)


def mark(world: World) -> None:
    """The end of a script: what it made ahead stays so until its mark is back."""
    keys = tuple(sorted(set(world.mine)))
    world.mine.clear()
    for key in keys:
        world.ahead[key] += 1
    if keys and world.subscribed:
        world.stream.append(Hint("ahead", keys=keys))


def _ahead(world: World, key: int) -> bool:
    return world.ahead[key] > 0 or key in world.mine


def _put(world: World, key: int, life: Life | None) -> None:
    """Let the entry be what was read of the key."""
    former = world.ledger[key]
    if life is None or life[0] == NO_TTL:
        world.ledger[key] = None
        if key in world.mine:
            world.mine.remove(key)
        return
    world.ledger[key] = life
    world.forgo(key, LATER)
    if world.rules.unchanged_is_ahead or former is None or former[0] != life[0]:
        world.mine.append(key)


def _record(world: World, key: int, life: Life | None) -> None:
    entry = world.ledger[key]
    if life is None:
        return
    if entry is not None and entry[0] < world.now and entry[0] != life[0]:
        if world.rules.due_entries_stay:
            return
        world.waive(key, entry)
    if life[0] == NO_TTL:
        world.ledger[key] = None
    else:
        _put(world, key, life)


def _expired(world: World, key: int, number: int) -> None:
    """`x` or `X`."""
    rules = world.rules
    world.book(number, hint=HANDLED)
    if world.full and not rules.claims_pass_a_full_outbox:
        return
    unknown = None if rules.ids_of_their_own else (key, world.now)
    if rules.ahead_keeps_from_expired and _ahead(world, key):
        world.tell(number, unknown)
        return
    entry = world.ledger[key]
    if entry is None:
        world.tell(number, unknown)
    elif entry[0] < world.now + (not rules.due_is_strictly_past):
        world.waive(key, entry, but=number)
        world.ledger[key] = None
        world.tell(number, (key, entry[0]))
    elif rules.every_expired_is_claimed:
        world.ledger[key] = None
        world.tell(number, unknown)
    if rules.claimed_is_resolved and world.round is not None:
        world.round = world.round._replace(pending=tuple(one for one in world.round.pending if one.key != key))


def _deleted(world: World, key: int) -> None:
    """`d`."""
    entry = world.ledger[key]
    if entry is not None and not (world.rules.ahead_keeps_from_deleted and _ahead(world, key)):
        world.waive(key, entry)
        world.ledger[key] = None


# Touches.


def touch(world: World, mode: str) -> None:
    """Touch what is `due`, or the next part of the `walk`; with a mark behind."""
    rules, limit = world.rules, world.bounds.limit or len(world.keys)
    before = world.now + (not rules.due_is_strictly_past)
    entries = [(entry[0], key) for key, entry in enumerate(world.ledger) if entry is not None]
    if mode == "due":
        page = sorted(entry for entry in entries if entry[0] < before)[:limit]
    else:
        page = [entry for entry in entries if world.walk <= entry[1] < world.walk + limit]
        world.walk = min(world.walk + limit, len(world.keys))
    seen = [_seen(world, key, score) for score, key in page]
    if not rules.touch_changes_no_entry:
        for one in seen:
            if not one.gone:
                _found_alive(world, one)
        seen = [one for one in seen if one.gone]
    pending = tuple(one for one in seen if one.due or one.gone)
    world.round = Round(pending, world.now, closable(world, rules), marked=not rules.wait_for_the_mark)
    if world.bounds.span:
        known, _, missing = world.spans
        world.spans = (known, known, missing)
    world.stream.append(Hint("touch"))


def _seen(world: World, key: int, score: int) -> Seen:
    life = read(world, key)
    due = score < world.now + (not world.rules.due_is_strictly_past)
    return Seen(key, score, life is None, due, None if world.rules.resolve_reads_again else life)


def _found_alive(world: World, seen: Seen) -> None:
    """Only where that rule is off."""
    entry = world.ledger[seen.key]
    if entry is not None and seen.due:
        world.waive(seen.key, entry)
        _put(world, seen.key, world.keys[seen.key])


def closable(at: State | World, rules: Rules) -> bool:
    """Whether nothing but a mark is missing for the open gap to be closed."""
    if not at.gap or at.scanning or (rules.walk and at.walk < len(at.keys)):
        return False
    return not rules.overdue_resolved_first or all(entry is None or entry[0] + 1 >= at.gap for entry in at.ledger)


def resolve(world: World) -> None:
    """The mark of the touch came back."""
    if world.round is None:
        return
    finished, world.round = world.round, None
    for seen in finished.pending:
        _resolve(world, seen)
    if finished.closing:
        _close(world)
    if world.bounds.span and not (world.gap and world.rules.seen_when_closed):
        world.spans = (finished.at, *world.spans[1:])


def _resolve(world: World, seen: Seen) -> None:
    """`r`."""
    rules, key = world.rules, seen.key
    entry = world.ledger[key]
    if entry is None or (rules.resolve_is_of_the_entry and (entry[0] != seen.score or _ahead(world, key))):
        return
    if seen.due and entry[0] >= world.now + (not rules.due_is_strictly_past):
        return
    now = read(world, key)
    write_what = now if rules.resolve_reads_again else seen.read
    if seen.gone if rules.touch_decides else now is None:
        if seen.due:
            _swept(world, key, entry)
        elif rules.count_gone:
            world.waive(key, entry, overdue=False)
        _put(world, key, write_what)
    elif now is not None or not (rules.resolve_leaves_to_hint and rules.resolve_reads_again):
        if now is None or now[0] != entry[0]:
            world.waive(key, entry)
        _put(world, key, write_what)


def _close(world: World) -> None:
    """The gap is closed, and what it counted is published."""
    world.gap = 0
    world.counts(WAIVED)
    if not world.subscribed:  # by a mark received before the connection was lost
        return
    world.spans = (*world.spans[:2], 0)
    for key, entry in enumerate(world.ledger):
        if entry is not None and world.fate(key, entry[1]) == UNSEEN:
            life = next(n for n in count(entry[1]) if world.lives[key][n] == UNSEEN)
            world.ended(key, life, SETTLED)


def _swept(world: World, key: int, entry: Life) -> None:
    """A claim without a hint: what it tells of, if anything, depends on what became of the life that was recorded."""
    fate = world.fate(key, entry[1])
    wrong = {ALIVE: "is alive", DELETED: "was deleted, and the bridge was told", FLUSHED: "was flushed"}
    if fate in wrong:
        raise Violation(f"none invented: published as expired, but the key {wrong[str(fate)]}")
    number = fate if isinstance(fate, int) else None
    if fate in {UNSEEN, SETTLED}:  # the key was deleted in a gap; a later life of it may have expired
        later = world.lives[key][entry[1] + 1 :]
        untold = [n for n in later if isinstance(n, int) and world.occurrences[n].hint in {UNSENT, LOST}]
        number = untold[0] if untold else None
        if number is None and fate == SETTLED and UNSEEN not in later:
            raise Violation("none invented: published after the gap, but the key was deleted in it")
    world.tell(number, (key, entry[0]))
