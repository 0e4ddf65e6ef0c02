"""What becomes of a ledger's entries when slots of a cluster move: they follow the keys.

Mostly Redis itself sees to that: on its way a key is deleted here and restored there, and both is notified. What is
left, since a notification was missed, or the way was another one, is found by a walk of the ledger, and put into
`…:moved` in the step that takes it out of the ledger. So is what a *stray* holds: a ledger on this node that is the
one of no primary any more (`slots.py`), for the slot of its name came here, or went, or a slot whose ledger goes before
came. It is adopted part by part (`adopt.lua`), with its outbox and its dead letters.

From `…:moved`, entries of keys that are here go into the ledger (`m` in `apply.lua`), and all others to the `…:moved`
of the node that has the key: put there first, then taken away here. So none is ever nowhere; one may be in two places
for a moment, and then be claimed twice, with the same id.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from bridge.clock import Clock
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.scan import Scan
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.hints import Hints
from bridge.redis.protocol.migrated_keys import Told
from bridge.redis.wire.topology import Topology
from bridge.tasks import happens, run_together
from bridge.telemetry.shard import ShardTelemetry

PAGE = 500
"""Entries placed at once."""
PAUSE = 1.0
"""Seconds before what could not be placed, or adopted, is tried again: so long, what is notified is handled."""
SEARCH_PAUSE = 5.0
"""Seconds between walks, scans and searches for strays that moving slots cause: in a rebalance, they never end."""
LOOK_COUNT = 1_000
"""Keys that Redis looks through for strays in one call."""

Entry = tuple[bytes, int]
"""Key and deadline."""


class Moves:
    """Those of one epoch. The epoch's task adopts, and takes what is put into `hints.moved`."""

    def __init__(  # noqa: PLR0913 - what moves, from where, to where, whom to tell
        self,
        topology: Topology,
        ledger: Ledger,
        hints: Hints,
        told: Told,
        *,
        number: int,
        matches: Callable[[bytes], object] | None,
        gap: Gap,
        scan: Scan,
        interval: float,
        redis_ms: Callable[[], float],
        wake: asyncio.Event,
        clock: Clock,
        telemetry: ShardTelemetry,
    ) -> None:
        """`number`: of the ledger. `interval`: seconds between looks for strays; 0 = only when slots have come."""
        self._topology = topology
        self._ledger = ledger
        self._hints = hints
        self._told = told
        self._number = number
        self._matches = matches
        self._gap = gap
        self._scan = scan
        self._interval = interval
        self._redis_ms = redis_ms
        self._wake = wake
        self._clock = clock
        self._telemetry = telemetry
        self._seek = asyncio.Event()
        self._sought = False
        """Whether all strays are known that were here when the epoch began."""
        self._here = self._slots()
        """The slots that were here when last looked."""
        self._moved = asyncio.Event()
        self._came = self._went = False
        """What is to be searched for on account of that."""
        self._some = asyncio.Event()
        self._placed = asyncio.Event()
        self._not_before: dict[int, float] = {}
        """When strays may be tried again that another bridge works on."""

    async def run(self) -> None:
        """Find strays, place what has moved, and look where slots are, until cancelled."""
        await run_together(
            {
                "strays": self._find_strays(),
                "moved": self._place_all(),
                "slots": self._watch_slots(),
                "search": self._search_slots(),
            }
        )

    # What the epoch's task calls.

    def stray(self) -> int | None:
        """The number of a ledger of which a part is to be adopted."""
        now = self._clock.monotonic()
        return next((number for number in self._hints.strays if self._not_before.get(number, now) <= now), None)

    @property
    def settled(self) -> bool:
        """Whether nothing is known that is to be adopted."""
        return self._sought and not self._hints.strays

    def adopted(self, number: int, left: int | str) -> None:
        """A part of it was; so much is left, or it is held by another bridge, or not here (any more)."""
        if left == "held":
            self._not_before[number] = self._clock.monotonic() + PAUSE
            return
        self._some.set()
        if left in {0, "elsewhere"}:
            self._hints.strays.discard(number)
            self._telemetry.ledger_adopted(number, complete=not left)

    def waiting(self, count: int) -> None:
        """So many entries are to be placed."""
        if count:
            self._some.set()

    def took(self) -> None:
        """What was put into `hints.moved` may be handled."""
        if not self._hints.moved:
            self._placed.set()

    # What has moved.

    async def _place_all(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            with suppress(NotConnected):  # the cluster is down, say; what is not placed stays where it is
                await self._go_through()
            await self._clock.sleep(PAUSE)

    async def _go_through(self) -> None:
        start, before = 0, None
        self._told.look(int(self._redis_ms()))
        unreached: set[int] = set()
        while page := await self._ledger.moved(start, PAGE):
            if page == before:  # none of it could be placed
                start += len(page)
            else:
                await self._place(page, unreached)
            before = page

    async def _place(self, page: Sequence[Entry], unreached: set[int]) -> None:
        self._look_at_slots()
        done, places = self._sorted(page)
        here = places.pop(self._number, [])
        for number in unreached:
            places.pop(number, None)
        for number, entries in places.items():
            try:
                await self._topology.hand_over(number, entries)
            except (NotConnected, Refused) as error:
                unreached.add(number)
                self._telemetry.entries_stranded(len(entries), str(error))
            else:
                done += (key for key, _ in entries)
        if done:
            await self._ledger.placed(done)
        if here:
            self._placed.clear()
            self._hints.moved.extend(here)
            self._wake.set()
            await self._placed.wait()

    def _sorted(self, page: Sequence[Entry]) -> tuple[list[bytes], dict[int, list[Entry]]]:
        """The keys that nobody wants to hear of, and all other entries, by the number of the ledger that they are for.

        Not those whose slots are on their way: before they are where they belong, nobody can tell what has become of
        the keys.
        """
        unwanted: list[bytes] = []
        places = defaultdict[int, list[Entry]](list)
        for entry in page:
            key, _ = entry
            number = self._topology.number_of(key)
            if self._matches is not None and not self._matches(key):
                unwanted.append(key)
            elif number is not None and not self._topology.moving(key):
                places[number].append(entry)
        return unwanted, places

    # What there is to move.

    async def _find_strays(self) -> None:
        """At the start, when slots have come (with Valkey's atomic migration nobody is told of the keys in them), and
        now and then: somebody may have sent entries to a ledger that was just adopted.
        """  # noqa: D205 - one sentence
        while True:
            self._seek.clear()
            await self._look_for_strays()
            self._sought = True
            self._wake.set()
            await self._clock.sleep(SEARCH_PAUSE)
            await happens(self._seek, self._interval or math.inf)

    async def _look_for_strays(self) -> None:
        cursor, names = 0, self._topology.names
        while True:
            cursor, keys = await self._ledger.scan(cursor, names.own_pattern, LOOK_COUNT)
            for key in keys:
                number = names.shard_of(key)
                if number is not None and number != self._number:
                    self._hints.strays.add(number)
                    self._wake.set()
            if not cursor:
                return

    async def _watch_slots(self) -> None:
        while True:
            news = self._topology.news
            self._look_at_slots()
            await news.wait()

    def _look_at_slots(self) -> None:
        """What came and went has to be known before what has moved is placed."""
        now = self._slots()
        came, went, self._here = now - self._here, self._here - now, now
        if came:
            self._told.came(came, int(self._redis_ms()))
        if went:
            self._told.went(went)
        if came or went:
            self._came, self._went = self._came or bool(came), self._went or bool(went)
            self._moved.set()

    async def _search_slots(self) -> None:
        """Keys that came with a slot need not have been notified; those that went neither."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            came, went, self._came, self._went = self._came, self._went, False, False
            if came:
                self._scan.again()
                self._seek.set()
            if went:
                self._gap.walk_again()
                self._wake.set()
            await self._clock.sleep(SEARCH_PAUSE)

    def _slots(self) -> frozenset[int]:
        node = self._topology.primaries.get(self._number)
        return frozenset() if node is None else node.slots
