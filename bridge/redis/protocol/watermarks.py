"""Up to when the notifications of each primary of a cluster were handled: there its next gap begins.

Mostly the lease of its ledger tells that. But when slots move, a primary may get another ledger, of which the lease
knows nothing, or what is true of another primary; and one that had no slots has had no lease. So the bridges tell each
other, once a second, through a hash beside their signs of life (`seen.lua`); and of a primary that is new to a bridge,
when it last looked and it was not there.

Guarantees: what is told is never later than what was handled. Late news, or none, only make a gap begin earlier, except
where no bridge has looked at the cluster before.

Pure: no I/O, no clock. The moments are in ms, on the clock of whichever node said them.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

NONE = -1
"""Instead of the number of a ledger: it had no slots."""
LOOK = "look"
"""Instead of a node: when a bridge has last looked."""

Entry = tuple[int, int]
"""The number of the ledger, and up to when."""


class Seen:
    """What this bridge knows of it."""

    def __init__(self) -> None:
        self.now_ms: int | None = None
        """When the others were last heard."""
        self._known: dict[str, Entry] = {}
        self._untold: dict[str, Entry | None] = {}
        self._telling: dict[str, Entry | None] = {}
        self._there: AbstractSet[str] = frozenset()
        self._looked_ms: int | None = None

    def handled(self, node: str, number: int, until_ms: int) -> None:
        """All notifications of that node were, up to then, in an epoch of the ledger of that number."""
        self._known[node] = self._untold[node] = (number, until_ms)

    def looked(self, nodes: AbstractSet[str], asked_ms: int | None) -> None:
        """These have slots. `asked_ms`: `now_ms` as it was before the cluster was asked."""
        for node in self._known.keys() - nodes:
            del self._known[node]
            self._untold[node] = None
        if self._looked_ms is not None:
            for node in nodes - self._known.keys():
                self.handled(node, NONE, self._looked_ms)
        self._there = nodes
        self._looked_ms = self._looked_ms if asked_ms is None else asked_ms

    def tell(self) -> list[tuple[str, str]]:
        """What the others do not know yet, of each node; empty for what they are to forget. Until they are heard."""
        self._telling = dict(self._untold)
        told = [(node, "" if entry is None else f"{entry[0]} {entry[1]}") for node, entry in self._telling.items()]
        return told if self._looked_ms is None else [*told, (LOOK, str(self._looked_ms))]

    def learn(self, now_ms: int, told: Mapping[str, str]) -> None:
        """What all have told."""
        self._untold = {node: entry for node, entry in self._untold.items() if self._telling.get(node, ()) != entry}
        look = told.get(LOOK)
        first, self.now_ms = self.now_ms is None, now_ms
        if self._looked_ms is None and look is not None:
            self._looked_ms = int(look)
        for node in self._there:
            if node in told:
                number, until_ms = told[node].split()
                self._known[node] = int(number), int(until_ms)
            elif first and self._looked_ms is not None:
                self._known[node] = NONE, self._looked_ms

    def since(self, node: str, number: int, stored_ms: int | None) -> int | None:
        """When a gap of that node begins, in an epoch of that ledger, whose lease has stored `stored_ms`."""
        former, until_ms = self._known.get(node, (number, None))
        if until_ms is None or (former == number and stored_ms is not None):
            return stored_ms
        return until_ms if stored_ms is None else min(until_ms, stored_ms)
