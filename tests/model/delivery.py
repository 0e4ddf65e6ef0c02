"""The delivery model: two bridges, one lease, claims into the outbox, and from there to the broker.

Promises that are checked: every expiration of a recorded key, and everything that was claimed, reaches the broker; one
expiration has one id, whichever process claims it, and no two share one; the outbox is empty in the end.

Modelled: crash, pause and lapsed lease of either process, lost requests, replies and acks, scripts that Redis reads
only after their process is dead or has sent them again. Not modelled: ledger and stream (`ledger.py`): each key expires
once, its hint goes to whoever listens, and the sweep claims what is in the ledger, once no hint is before its mark.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.rules import DeliveryBounds, DeliveryRules
from tests.model.search import Successor

EntryId = tuple[int, int]
"""Fence, sequence number."""
Identity = tuple[str, int, EntryId]
"""Of an expiration: with its deadline, or with its place in the outbox."""
DOWN, UP, PAUSED = "down", "up", "paused"
_NOWHERE = (0, 0)


class Claim(NamedTuple):
    """A script on its way."""

    fence: int
    number: int
    key: int


class UnderWay(NamedTuple):
    """An outbox entry that a process delivers."""

    entry: EntryId
    identity: Identity
    key: int
    acked: bool = False


class Process(NamedTuple):
    """A bridge."""

    mode: str = UP
    fence: int = 0
    """Of its epoch; 0: none."""
    number: int = 0
    """Of its last script in this epoch."""
    listens: bool = False
    hints: tuple[int, ...] = ()
    doubt: Claim | None = None
    """Sent, and not answered."""
    reads: bool = False
    """Whether it believes that delivery is its own."""
    cursor: EntryId = _NOWHERE
    under_way: tuple[UnderWay, ...] = ()


class State(NamedTuple):
    """All there is."""

    expired: int
    """How many keys did."""
    ledger: frozenset[int]
    outbox: tuple[UnderWay, ...]
    broker: frozenset[tuple[Identity, int]]
    claimed: frozenset[tuple[Identity, int]]
    holder: int
    """Of the lease; -1: nobody yet."""
    fence: int
    number: int
    """Of the last claim under this fence."""
    processes: tuple[Process, Process]
    late: tuple[Claim, ...]
    """Sent by a process that does not wait for them any more, and not read by Redis yet."""
    faults: int


_Step = tuple[str, bool, State]


class Delivery:
    """See the module."""

    def __init__(self, rules: DeliveryRules, bounds: DeliveryBounds) -> None:
        self.rules, self.bounds = rules, bounds

    def start(self) -> State:
        """Two bridges that know nothing."""
        recorded = frozenset(key for key, kind in enumerate(self.bounds.keys) if kind == "r")
        return State(
            0, recorded, (), frozenset(), frozenset(), -1, 0, 0, (Process(), Process()), (), self.bounds.faults
        )

    def successors(self, state: State) -> Iterator[Successor[State]]:
        """Every step that can be taken."""
        for label, mandatory, reached in self._steps(state):
            wrong = None if reached.claimed is state.claimed else _wrong(reached)
            yield Successor(label, mandatory, None if wrong else reached, wrong)

    def final(self, state: State) -> str | None:
        """What is wrong with a state in which nothing more has to happen."""
        told = {key for _, key in state.broker}
        for key in range(state.expired):
            if key not in told and (self.bounds.keys[key] == "r" or any(key == of for _, of in state.claimed)):
                return f"all published: k{key} is not"
        return "all settled: the outbox is not empty" if state.outbox else None

    # Redis.

    def _steps(self, state: State) -> Iterator[_Step]:
        if state.expired < len(self.bounds.keys):
            key = state.expired
            told = [_hinted(one, key) for one in state.processes]
            yield f"k{key} expires", True, state._replace(expired=key + 1, processes=(told[0], told[1]))
        for at, late in enumerate(state.late):
            rest = state._replace(late=state.late[:at] + state.late[at + 1 :])
            yield f"Redis reads the claim of k{late.key} at last", True, self._claim(rest, late)
        for which in (0, 1):
            yield from self._of(state, which)

    def _may(self, state: State, claim: Claim) -> bool:
        """Whether the script is neither refused nor done before."""
        current = claim.fence == state.fence
        return (current or not self.rules.fence) and (
            not self.rules.sequence_numbers or not current or claim.number > state.number
        )

    def _claim(self, state: State, claim: Claim) -> State:
        """The script."""
        if not self._may(state, claim):
            return state
        entry, key = (claim.fence, claim.number), claim.key
        while any(entry == one.entry for one in state.outbox):  # only where a rule is off: Redis would refuse it
            entry = (entry[0], entry[1] + 1)
        identity: Identity = ("deadline", key, _NOWHERE) if key in state.ledger else ("outbox", key, entry)
        return state._replace(
            ledger=state.ledger - {key},
            outbox=(*state.outbox, UnderWay(entry, identity, key)),
            claimed=state.claimed | {(identity, key)},
            number=max(state.number, claim.number),
        )

    # A process.

    def _of(self, state: State, which: int) -> Iterator[_Step]:
        one, name = state.processes[which], "AB"[which]
        if one.mode == DOWN:
            yield f"{name} starts", True, _put(state, which, Process())
            return
        if one.mode == PAUSED:
            yield f"{name} goes on", True, _put(state, which, one._replace(mode=UP))
        yield from _faults(state, which)
        if one.mode == UP:
            if one.doubt is not None:
                yield self._again(state, which, one.doubt)
            elif not one.fence:
                yield from self._acquire(state, which)
            else:
                yield from self._find(state, which)
            yield from self._deliver(state, which)

    def _acquire(self, state: State, which: int) -> Iterator[_Step]:
        one, name, holder = state.processes[which], "AB"[which], state.holder
        free = holder in {-1, which} or not state.processes[holder].fence or state.processes[holder].mode != UP
        if free:
            anew = holder != which or self.rules.fence_per_epoch
            fence = state.fence + 1 if anew else state.fence
            keep = not self.rules.subscribe_under_the_lease
            mine = one._replace(
                fence=fence, number=0, listens=one.listens and keep, hints=one.hints if keep else (), reads=True,
                cursor=_NOWHERE if self.rules.outbox_until_settled or not one.reads else one.cursor,
            )  # fmt: skip
            yield (
                f"{name} takes the lease", True,
                _put(state._replace(holder=which, fence=fence, number=0), which, mine),
            )  # fmt: skip
        else:
            if one.reads:
                yield f"{name} stands by", True, _put(state, which, one._replace(reads=False))
            if not self.rules.subscribe_under_the_lease and not one.listens:
                yield f"{name} subscribes, standing by", True, _put(state, which, one._replace(listens=True))

    def _find(self, state: State, which: int) -> Iterator[_Step]:
        """What the epoch does."""
        one, name = state.processes[which], "AB"[which]
        if not one.listens:
            yield f"{name} subscribes", True, _put(state, which, one._replace(listens=True))
        elif one.hints:
            key = one.hints[0]
            claim = Claim(one.fence, one.number + 1, key)
            waits = one._replace(hints=one.hints[1:], number=claim.number)
            yield f"{name} claims k{key}", True, self._answered(state, which, waits, claim)
            if state.faults:
                less = _put(state._replace(faults=state.faults - 1), which, waits._replace(doubt=claim))
                yield f"{name} claims k{key}; the reply is lost", False, self._claim(less, claim)
                yield f"{name} claims k{key}; the request is lost", False, less
                yield f"{name} claims k{key}; it is not read yet", False, less._replace(late=(*less.late, claim))
        else:
            for key in sorted(state.ledger):
                if key < state.expired:
                    claim = Claim(one.fence, one.number + 1, key)
                    swept = one._replace(number=claim.number)
                    yield f"{name} sweeps k{key}", True, self._answered(state, which, swept, claim)
        if one.fence != state.fence:
            yield f"{name} is refused", True, _put(state, which, _over(one))

    def _answered(self, state: State, which: int, mine: Process, claim: Claim) -> State:
        """A claim is made, and its reply comes."""
        if not self._may(state, claim):
            return _put(state, which, _over(mine))
        done = self._claim(state, claim)
        if not self.rules.outbox_until_settled:
            mine = mine._replace(under_way=(*mine.under_way, done.outbox[-1]))
        return _put(done, which, mine)

    def _again(self, state: State, which: int, claim: Claim) -> _Step:
        """What is in doubt is sent again; whatever the answer is, the epoch is over."""
        over = _put(state, which, _over(state.processes[which])._replace(doubt=None))
        return f"{'AB'[which]} claims k{claim.key} again", True, self._claim(over, claim)

    def _deliver(self, state: State, which: int) -> Iterator[_Step]:
        one, name = state.processes[which], "AB"[which]
        if one.reads and (self.rules.outbox_until_settled or one.cursor == _NOWHERE):
            unread = [entry for entry in state.outbox if entry.entry > one.cursor]
            if unread:
                known = {under_way.entry for under_way in one.under_way}
                new = tuple(entry for entry in unread if entry.entry not in known)
                read = one._replace(cursor=unread[-1].entry, under_way=one.under_way + new)
                yield f"{name} reads the outbox", True, _put(state, which, read)
        for at, entry in enumerate(one.under_way):
            rest = one.under_way[:at] + one.under_way[at + 1 :]
            if entry.acked or not self.rules.settle_when_acked:
                outbox = tuple(other for other in state.outbox if other.entry != entry.entry)
                kept = rest if entry.acked else one.under_way
                settled = _put(state._replace(outbox=outbox), which, one._replace(under_way=kept))
                if settled != state:
                    yield f"{name} settles k{entry.key}", True, settled
            if not entry.acked:
                broker = state._replace(broker=state.broker | {(entry.identity, entry.key)})
                acked = one._replace(under_way=(*rest, entry._replace(acked=True)))
                yield f"{name} publishes k{entry.key}", True, _put(broker, which, acked)
                if state.faults and broker.broker != state.broker:
                    lost = broker._replace(faults=state.faults - 1)
                    yield f"{name} publishes k{entry.key}; the ack is lost", False, lost


def _wrong(state: State) -> str | None:
    for identity, key in state.claimed:
        for other, of in state.claimed:
            if key == of and identity != other:
                return "one id: one expiration has two"
            if identity == other and key != of:
                return "one id: two expirations share one"
    return None


def _faults(state: State, which: int) -> Iterator[_Step]:
    one, name = state.processes[which], "AB"[which]
    if not state.faults:
        return
    less = state._replace(faults=state.faults - 1)
    yield f"{name} DIES", False, _put(less, which, Process(mode=DOWN))
    if one.mode == UP:
        yield f"{name} IS PAUSED", False, _put(less, which, one._replace(mode=PAUSED))
        if one.fence and one.hints and one.doubt is None:
            claim = Claim(one.fence, one.number + 1, one.hints[0])
            dead = _put(less._replace(late=(*less.late, claim)), which, Process(mode=DOWN))
            yield f"{name} DIES; Redis has not read its claim of k{claim.key} yet", False, dead
        if one.listens:
            yield f"{name} LOSES ITS SUBSCRIPTION", False, _put(less, which, _over(one))


def _over(one: Process) -> Process:
    """The epoch is over: delivery goes on with what is under way."""
    return one._replace(fence=0, listens=False, hints=())


def _hinted(one: Process, key: int) -> Process:
    return one._replace(hints=(*one.hints, key)) if one.listens else one


def _put(state: State, which: int, one: Process) -> State:
    processes = (one, state.processes[1]) if which == 0 else (state.processes[0], one)
    return state._replace(processes=processes)
