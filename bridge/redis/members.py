"""Who is there, and how many shards each may hold: so several bridges share the shards evenly.

Each bridge gives a sign of life, and hears how many there are, and its own place among them. Of `s` shards and `n`
bridges each may hold `s // n`, and the first `s % n` of them one more. Who holds too many gives the last ones up; who
holds too few takes what is free.

This is for evenness only. Nobody may change a shard without its lease, and correctness does not rest on that either,
but on atomic claims and their ids: bridges that disagree about who is there do no harm.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from bridge.errors import NotConnected, Refused
from bridge.redis.connection import Fenced
from bridge.redis.ledger import Ledger

INTERVAL = 1.0
"""Seconds between signs of life."""
LIFE_MS = 3_000
"""How long one counts: less than a lease, so that when a dead bridge's leases end, it is not counted any more."""


class Members:
    """The bridges of one ledger, as one of them sees it."""

    def __init__(self, ledger: Callable[[], Ledger], instance: str, shards: int) -> None:
        """`ledger`: the one of any shard, on the server that is the primary now."""
        self._ledger = ledger
        self._instance = instance
        self._shards = shards
        self._leaving = asyncio.Event()
        self.share = shards if shards == 1 else 0
        """How many shards this bridge may hold. Of a single one, whoever comes first has the lease."""
        self._held: set[int] = set()

    def may_take(self, shard: int) -> bool:
        """Whether it may take that one, or has it already."""
        return shard in self._held or len(self._held) < self.share

    def took(self, shard: int) -> None:
        """It has the lease of that one now."""
        self._held.add(shard)

    def lost(self, shard: int) -> None:
        """It has not, any more."""
        self._held.discard(shard)

    def surplus(self, shard: int) -> bool:
        """Whether that one is to be given up, so that another bridge can take it."""
        return shard in sorted(self._held)[self.share :] and self._shards > 1

    def leave(self) -> None:
        """Count no more, so that the others' shares grow at once: `run` says so, and returns."""
        self._leaving.set()

    async def run(self) -> None:
        """Give signs of life, until it is time to leave."""
        while self._shards > 1:
            leaving = self._leaving.is_set()
            with suppress(NotConnected, Refused, Fenced):  # the shards tell what is wrong with Redis
                place, count = await self._ledger().sign_of_life(self._instance, 0 if leaving else LIFE_MS)
                if count and not leaving:
                    self.share = self._shards // count + (place < self._shards % count)
            if leaving:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._leaving.wait()
