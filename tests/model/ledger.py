"""The ledger model: one bridge, one Redis, its users, and everything in between that may go wrong, in any order.

Promises that are checked: every expiration of a recorded key is published, or counted as ambiguous in the record of a
gap; so is everything whose `expired` notification was handled; one expiration has one id, and no two share one; none is
invented; the span of each gap covers what was missed in it. Publishing itself is the other model (`delivery.py`).

Faults: the epoch is cut off. Of what was sent by then, some was received; it is handled before the next epoch begins,
as late as it may be: that is also how a batch in doubt behaves, and a script of a dead process that Redis had not read.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from tests.model import scripts, server
from tests.model.rules import Bounds, Rules
from tests.model.search import Successor
from tests.model.server import Step
from tests.model.world import COUNTED, HANDLED, LATER, NEARER, PROMISED, TOLD, Hint, Impossible, State, Violation, World


class Ledger:
    """See the module."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules, self.bounds = rules, bounds

    def start(self) -> State:
        """Subscribed, without a gap; nothing there."""
        bounds = self.bounds
        nothing = (None,) * bounds.keys
        zeros = (0,) * bounds.keys
        return State(
            now=0, keys=nothing, ledger=nothing, stream=(), lives=((),) * bounds.keys, occurrences=(), ids=frozenset(),
            subscribed=True, gap=0, walk=bounds.keys, scanning=False, round=None, ahead=zeros, unwritten=(),
            user=bounds.user, faults=bounds.faults, scans=bounds.scans, paused=False, full=False, lost_at=0,
            spans=(0, 0, 0), last=zeros,
        )  # fmt: skip

    def successors(self, state: State) -> Iterator[Successor[State]]:
        """Every step that can be taken."""
        for label, mandatory, act in self._steps(state):
            world = World(state, self.rules, self.bounds)
            try:
                act(world)
            except Impossible:
                continue
            except Violation as violation:
                yield Successor(label, mandatory, None, str(violation))
            else:
                yield Successor(label, mandatory, world.state(), None)

    def final(self, state: State) -> str | None:
        """What is wrong with a state in which nothing more has to happen."""
        for number, one in enumerate(state.occurrences):
            if one.hint == TOLD:
                continue
            if one.promise in {PROMISED, LATER, NEARER, COUNTED}:
                return f"all published: expiration {number}, of k{one.key} which was recorded, is not ({one.hint})"
            if one.hint == HANDLED:
                return f"all published: expiration {number}, whose notification was handled, is not"
        return None

    # Steps.

    def _steps(self, state: State) -> Iterator[Step]:
        yield from server.steps(state, self.bounds)
        yield from self._faults(state)
        if not state.subscribed and not state.stream:
            yield "the next epoch: subscribed, gap opened", True, _subscribe
        elif state.unwritten:
            yield "write what was read", True, scripts.write
        else:
            if not state.paused:
                yield from self._scripts(state)
            if not state.paused or not self.rules.touch_is_a_write:
                yield from self._touches(state)

    def _scripts(self, state: State) -> Iterator[Step]:
        for count in range(1, min(len(state.stream), self.bounds.batch) + 1):
            said = " ".join(_said(hint) for hint in state.stream[:count])
            yield f"apply [{said}]", True, partial(_apply, count=count)
            if state.scanning or state.scans:
                yield f"apply [{said}], and scan", state.scanning, partial(_apply, count=count, scan=True)
            if state.faults and self.bounds.lost_reply:
                yield f"apply [{said}]; its reply is lost", False, partial(_apply_unanswered, count=count)
        if state.scanning:
            yield "scan", True, _scan
        elif state.scans:
            yield "scan", False, _scan
        if state.round is not None and state.round.marked:
            yield "resolve", True, _resolve

    def _faults(self, state: State) -> Iterator[Step]:
        if state.faults and self.bounds.cut:
            if state.subscribed:
                yield "CUT OFF", False, partial(_cut, received=0)
            for received in range(1, len(state.stream) + state.subscribed):
                yield f"CUT OFF, with {received} received", False, partial(_cut, received=received)

    def _touches(self, state: State) -> Iterator[Step]:
        if not state.subscribed or state.round is not None or state.full:
            return
        limit = state.now + (not self.rules.due_is_strictly_past)
        if any(entry is not None and entry[0] < limit for entry in state.ledger):
            yield "touch what is due", True, partial(scripts.touch, mode="due")
        if state.walk < self.bounds.keys and self.rules.walk:
            yield "touch, walking", True, partial(scripts.touch, mode="walk")
        elif scripts.closable(state, self.rules):
            yield "touch, to close the gap", True, partial(scripts.touch, mode="due")
        elif self.bounds.span and state.spans[0] != state.spans[1]:
            yield "touch, to extend the lease", False, partial(scripts.touch, mode="due")


def _said(hint: Hint) -> str:
    if hint.kind == "touch":
        return "the touch's mark"
    if hint.kind == "ahead":
        return "mark of " + " ".join(f"k{key}" for key in hint.keys)
    return {"x": "expired", "d": "del", "p": "expire"}[hint.kind] + f" k{hint.key}"


def _cut(world: World, received: int) -> None:
    """The connection is lost, after some of what was sent was received; or the process dies."""
    world.faults -= 1
    world.lose(world.stream[received:])
    del world.stream[received:]
    if world.subscribed:
        world.lost_at = 0 if world.rules.gap_starts_subscribed else world.now
    world.subscribed = False
    if not received:
        _over(world)


def _over(world: World) -> None:
    """What the epoch knew is forgotten."""
    world.round = None
    world.ahead = [0] * len(world.ahead)
    world.unwritten = ()
    world.scanning = False
    world.spans = (0, *world.spans[1:])
    if not world.rules.counts_outlive_epochs:
        world.counts(PROMISED)


def _subscribe(world: World) -> None:
    _over(world)
    world.subscribed = True
    world.gap = 1 + (world.now if world.rules.gap_starts_subscribed else world.lost_at)
    world.walk, world.scanning = 0, True
    _, stored, missing = world.spans
    if missing and stored > missing - 1:
        raise Violation("gaps cover: something was missed before the gap that is announced")


def _apply(world: World, count: int, *, scan: bool = False) -> None:
    batch = world.stream[:count]
    del world.stream[:count]
    scripts.apply(world, batch, _begun(world) if scan else ())


def _apply_unanswered(world: World, count: int) -> None:
    """Done, but its reply is lost. It is sent again, answered by DONE, and the epoch ends."""
    world.faults -= 1
    batch = world.stream[:count]
    scripts.apply(world, batch)
    if world.rules.sequence_numbers:
        _cut(world, 0)
        world.faults += 1


def _scan(world: World) -> None:
    scripts.observe(world, _begun(world))


def _begun(world: World) -> Iterable[int]:
    """A scan is done, of one part: which keys it finds."""
    world.scans -= not world.scanning
    world.scanning = False
    return range(len(world.keys))


def _resolve(world: World) -> None:
    """Only where a rule that says when is off."""
    scripts.resolve(world)
    scripts.mark(world)
