"""The state of the ledger model, and the books that it is checked by.

What is real: keys, clock, ledger, notification stream, what the bridge remembers. What is only kept to check it: every
SET begins a *life* of its key, and each life has a *fate*; an entry of the ledger remembers the life that was read;
every expiration is an *occurrence*, which is promised if the ledger had its deadline at that moment.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tests.model.rules import Bounds, Rules

NO_TTL = 90
"""The deadline of a key without one: later than every clock."""

Life = tuple[int, int]
"""Deadline, number of the key's life. Of a key, of an entry of the ledger, and of what was read."""
Fate = str | int
"""Of a life: one of the following, or the number of the occurrence if it expired."""
ALIVE, REPLACED, FLUSHED = "alive", "replaced", "flushed"
DELETED = "deleted"
UNSEEN = "deleted, and nobody was told"
SETTLED = "deleted in a gap that is closed"
FORGOTTEN = ""

PROMISED, LATER, NEARER, NOT_PROMISED = "promised", "later", "nearer", "-"
COUNTED, WAIVED = "counted", "waived"
"""Of an occurrence. Promised: its deadline was recorded. Later: a nearer one was; promised, unless a later life of the
key is recorded first. Nearer: a later one was; promised, unless the key is set again. Counted: as ambiguous, in a gap
that is open. Waived: in one that is closed."""
IN_STREAM, UNSENT, LOST, HANDLED, TOLD = "in the stream", "not sent", "lost", "handled", "told"
"""Of an occurrence's hint; or the occurrence was published."""


class Violation(Exception):
    """The protocol broke a promise. The message begins with the promise's name."""


class Impossible(Exception):
    """The step cannot be taken here."""


class Hint(NamedTuple):
    """A notification."""

    kind: str
    """`x` expired, `d` deleted, `p` appeared, `touch` a touch's mark, `ahead` a batch's mark."""
    key: int = 0
    about: int = 0
    """The occurrence, or the life that was deleted."""
    keys: tuple[int, ...] = ()
    """Of a batch's mark: which keys it made ahead."""
    at: int = 0
    """When it was sent; 0 where spans are not checked."""


class Occurrence(NamedTuple):
    """A key expired."""

    key: int
    promise: str
    hint: str


class Seen(NamedTuple):
    """What a touch saw of one entry."""

    key: int
    score: int
    gone: bool
    due: bool
    read: Life | None = None
    """What was read; only where a rule that is off needs it."""


class Round(NamedTuple):
    """A touch, until what it saw is resolved."""

    pending: tuple[Seen, ...]
    at: int
    closing: bool
    marked: bool = False


class State(NamedTuple):
    """All there is, at one moment."""

    now: int
    keys: tuple[Life | None, ...]
    ledger: tuple[Life | None, ...]
    stream: tuple[Hint, ...]
    """On its way, or received and not handled."""
    lives: tuple[tuple[Fate, ...], ...]
    occurrences: tuple[Occurrence, ...]
    ids: frozenset[tuple[int, int]]
    """Key and deadline, or time, of the ids that were given."""
    subscribed: bool
    gap: int
    """The start of the open gap, plus 1; 0: none is open."""
    walk: int
    """The next key of the walk; the number of keys: it is through."""
    scanning: bool
    round: Round | None
    ahead: tuple[int, ...]
    """By key: how many marks of scripts that made it ahead are on their way."""
    unwritten: tuple[tuple[int, Life | None], ...]
    """Read, and to be written by the next script: only where that rule is off."""
    user: int
    faults: int
    scans: int
    paused: bool
    full: bool
    lost_at: int
    """When the last subscription was lost: only where that rule is off."""
    spans: tuple[int, int, int]
    """Of `seen_ms`: what the epoch knows, what is stored. And since when notifications are missing, plus 1; 0: none."""
    last: tuple[int, ...]
    """By key: the deadline of its last life that expired; only where it may be set again."""


_state = tuple.__new__
"""Makes a State as `State(…)` does, in half the time."""


class World:
    """A state that can be changed, and the books."""

    __slots__ = (*State._fields, "bounds", "mine", "rules")

    def __init__(self, state: State, rules: Rules, bounds: Bounds) -> None:
        self.rules, self.bounds = rules, bounds
        self.mine: list[int] = []
        """Keys that the running script made ahead."""
        (
            self.now, keys, ledger, stream, self.lives, occurrences, self.ids, self.subscribed, self.gap, self.walk,
            self.scanning, self.round, ahead, self.unwritten, self.user, self.faults, self.scans, self.paused,
            self.full, self.lost_at, self.spans, self.last,
        ) = state  # fmt: skip
        self.keys, self.ledger, self.stream = list(keys), list(ledger), list(stream)
        self.occurrences, self.ahead = list(occurrences), list(ahead)

    def state(self) -> State:
        """The state as it is now; without the books of lives that nothing refers to any more."""
        if self.rules.resolve_reads_again and self.rules.read_and_write_in_one_script:
            self._forget()
        return _state(
            State,
            (
                self.now, tuple(self.keys), tuple(self.ledger), tuple(self.stream), self.lives,
                tuple(self.occurrences), self.ids, self.subscribed, self.gap, self.walk, self.scanning, self.round,
                tuple(self.ahead), self.unwritten, self.user, self.faults, self.scans, self.paused, self.full,
                self.lost_at, self.spans, self.last,
            ),
        )  # fmt: skip

    def _forget(self) -> None:
        for key, lives in enumerate(self.lives):
            life, entry = self.keys[key], self.ledger[key]
            first = len(lives) if life is None else life[1]
            if entry is not None and entry[1] < first:
                first = entry[1]
            if first and lives[first - 1] != FORGOTTEN:
                self.lives = _with(self.lives, key, (FORGOTTEN,) * first + lives[first:])

    # Lives.

    def fate(self, key: int, life: int) -> Fate:
        """What became of a life, or of the one that it became by being replaced."""
        lives = self.lives[key]
        while lives[life] == REPLACED:
            life += 1
        return lives[life]

    def ended(self, key: int, life: int, fate: Fate) -> None:
        """A life ended."""
        lives = self.lives[key]
        self.lives = _with(self.lives, key, (*lives[:life], fate, *lives[life + 1 :]))

    def begun(self, key: int, deadline: int) -> None:
        """A new life of the key begins; a former one is replaced."""
        self.forgo(key, NEARER)
        former = self.keys[key]
        if former is not None:
            self.ended(key, former[1], REPLACED)
        self.keys[key] = (deadline, len(self.lives[key]))
        self.lives = _with(self.lives, key, (*self.lives[key], ALIVE))

    # Occurrences.

    def promise(self, key: int, life: Life) -> str:
        """What is promised of a life that expires now."""
        entry = self.ledger[key]
        if entry is None or entry == life:
            return NOT_PROMISED if entry is None else PROMISED
        replaced = all(fate == REPLACED for fate in self.lives[key][entry[1] : life[1]])
        return NOT_PROMISED if not replaced else LATER if entry[0] <= life[0] else NEARER

    def forgo(self, key: int, promise: str) -> None:
        """Nothing of that kind is promised of the key any more."""
        for number, one in enumerate(self.occurrences):
            if one.key == key and one.promise == promise:
                self.book(number, promise=NOT_PROMISED)

    def notify(self, kind: str, key: int, about: int = 0) -> bool:
        """Send a notification. False where nobody listens."""
        if self.subscribed:
            self.stream.append(Hint(kind, key, about, at=self.now if self.bounds.span else 0))
        elif kind != "p":
            self.missed(self.now)
        return self.subscribed

    def missed(self, at: int) -> None:
        """A notification that was sent, or should have been, is lost to the bridge."""
        if self.bounds.span:
            known, stored, since = self.spans
            self.spans = (known, stored, min(since, at + 1) if since else at + 1)

    def lose(self, hints: Sequence[Hint]) -> None:
        """These notifications are lost."""
        for hint in hints:
            if hint.kind == "x":
                self.book(hint.about, hint=LOST)
            elif hint.kind == "d" and self.lives[hint.key][hint.about] == DELETED:
                self.ended(hint.key, hint.about, UNSEEN)
            if hint.kind in "xd":
                self.missed(hint.at)

    def book(self, number: int, *, promise: str | None = None, hint: str | None = None) -> None:
        """Change what is known of an occurrence; nothing once it is published."""
        one = self.occurrences[number]
        if one.hint != TOLD:
            self.occurrences[number] = Occurrence(one.key, promise or one.promise, hint or one.hint)

    def tell(self, number: int | None, identity: tuple[int, int] | None) -> None:
        """Publish an occurrence, or what is none (None), under an id (None: one that nothing else can have)."""
        if identity is not None:
            if identity in self.ids:
                raise Violation("one id: claimed twice under the same id")
            self.ids |= {identity}
        if number is not None:
            if self.occurrences[number].hint == TOLD:
                raise Violation("one id: one occurrence is claimed twice")
            self.occurrences[number] = Occurrence(self.occurrences[number].key, NOT_PROMISED, TOLD)

    def waive(self, key: int, entry: Life, *, but: int | None = None, overdue: bool = True) -> None:
        """Count the entry as ambiguous, if a gap is open (and it was overdue at its start).

        That excuses an occurrence of its life only if the hint was lost; and not if it is known to have expired: a
        touch saw the key gone, and its mark is back.
        """
        counted = entry[0] + 1 < self.gap and self.rules.count_ambiguous if overdue else self.gap > 0
        known = (
            self.round is not None and self.round.marked and key in [one.key for one in self.round.pending if one.gone]
        )
        if known or not counted:
            return
        number = self.fate(key, entry[1])
        if isinstance(number, int) and number != but and self.occurrences[number].hint in {UNSENT, LOST}:
            self.book(number, promise=COUNTED)

    def counts(self, outcome: str) -> None:
        """The count of the gap is published, or dies (`PROMISED` again)."""
        for number, one in enumerate(self.occurrences):
            if one.promise == COUNTED:
                self.book(number, promise=outcome)


def _with(of: tuple[tuple[Fate, ...], ...], key: int, lives: tuple[Fate, ...]) -> tuple[tuple[Fate, ...], ...]:
    return (*of[:key], lives, *of[key + 1 :])
