"""Up to when the notifications of each primary of a cluster were handled: there its next gap begins.

Usually the lease of its ledger says that. But when slots move, a primary may get another ledger, whose lease knows
nothing of it, or belonged to another primary. And a primary without slots has had no lease. So the bridges exchange
their watermarks, once a second, through a hash beside their signs of life (`seen.lua`). For a primary that is new to a
bridge, they exchange when the bridge last looked and the primary was not there.

Guarantees: a watermark is never later than what was handled. An old one, or none, only makes a gap begin earlier,
unless no bridge has looked at the cluster before.

Pure: no I/O, no clock. Times are in ms, on the clock of the node that reported them.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial

NONE = -1
"""Instead of the number of a ledger: it had no slots."""
LOOK = "look"
"""Instead of a node: when a bridge has last looked."""

Watermark = tuple[int, int]
"""The number of the ledger, and up to when."""


class Watermarks:
    """What this bridge knows of them."""

    def __init__(self) -> None:
        self._exchanged_ms: int | None = None
        """When the others' watermarks were last read."""
        self._known: dict[str, Watermark] = {}
        self._unsaid: dict[str, Watermark | None] = {}
        """What the others do not know yet; None if they should forget it."""
        self._saying: dict[str, Watermark | None] = {}
        self._nodes: AbstractSet[str] = frozenset()
        self._looked_ms: int | None = None

    def handled(self, node: str, number: int, until_ms: int) -> None:
        """All notifications of that node up to then were handled, in an epoch of the ledger of that number."""
        self._known[node] = self._unsaid[node] = (number, until_ms)

    def look(self) -> Callable[[AbstractSet[str]], None]:
        """The cluster is about to be looked at. Call the returned function with the nodes that have slots."""
        return partial(self._looked, self._exchanged_ms)

    def _looked(self, asked_ms: int | None, nodes: AbstractSet[str]) -> None:
        """`asked_ms`: a moment before the cluster was asked."""
        for node in self._known.keys() - nodes:
            del self._known[node]
            self._unsaid[node] = None
        if self._looked_ms is not None:
            for node in nodes - self._known.keys():
                self.handled(node, NONE, self._looked_ms)
        self._nodes = nodes
        self._looked_ms = self._looked_ms if asked_ms is None else asked_ms

    def news(self) -> list[tuple[str, str]]:
        """What the others do not know yet, by node; empty if they should forget it. Repeated until they have it."""
        self._saying = dict(self._unsaid)
        news = [(node, "" if mark is None else f"{mark[0]} {mark[1]}") for node, mark in self._saying.items()]
        return news if self._looked_ms is None else [*news, (LOOK, str(self._looked_ms))]

    def learn(self, now_ms: int, said: Mapping[str, str]) -> None:
        """What all bridges have said."""
        self._unsaid = {node: mark for node, mark in self._unsaid.items() if self._saying.get(node, ()) != mark}
        look = said.get(LOOK)
        first, self._exchanged_ms = self._exchanged_ms is None, now_ms
        if self._looked_ms is None and look is not None:
            self._looked_ms = int(look)
        for node in self._nodes:
            if node in said:
                number, until_ms = said[node].split()
                self._known[node] = int(number), int(until_ms)
            elif first and self._looked_ms is not None:
                self._known[node] = NONE, self._looked_ms

    def since(self, node: str, number: int, stored_ms: int | None) -> int | None:
        """When a gap of that node begins, in an epoch of that ledger, whose lease has stored `stored_ms`."""
        former, until_ms = self._known.get(node, (number, None))
        if until_ms is None or (former == number and stored_ms is not None):
            return stored_ms
        return until_ms if stored_ms is None else min(until_ms, stored_ms)
