"""Who is there, and how many shards each may hold: so several bridges share the shards evenly.

Each bridge gives a sign of life, and hears how many there are, and its own place among them. Of `s` shards and `n`
bridges each may hold `s // n`, and the first `s % n` of them one more. Who holds too many gives the last ones up; who
holds too few takes what is free.

This is for evenness only. Nobody may change a shard without its lease, and correctness does not rest on that either,
but on atomic claims and their ids: bridges that disagree about who is there do no harm.
"""

import asyncio
from collections.abc import Callable

from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.roster import Roster
from bridge.redis.wire.errors import Fenced


class Members:
    """The bridges of one ledger, as one of them sees it."""

    def __init__(self, runtime: Runtime, roster: Callable[[], Roster], shards: int, *, clustered: bool = False) -> None:
        """`roster`: on the server that is the primary now; it may raise NotConnected.

        `clustered`: they are those of a cluster, of which there may be more or fewer later, on several servers.
        """
        self._clock = runtime.clock
        self._limits = runtime.limits.source
        self._instance = runtime.instance
        self._roster = roster
        self.shards = shards
        """How many there are now."""
        self.shared = clustered or shards > 1
        """Whether bridges share them; of a single one, whoever comes first has the lease."""
        self._clustered = clustered
        self._leaving = False
        self._urgent = asyncio.Event()
        """The next sign of life is due at once."""
        self._answered = self._clock.monotonic()
        self.share = 0 if self.shared else shards
        """How many shards this bridge may hold."""
        self._held: set[int] = set()
        """The shards that it holds, or is about to ask for."""
        self._dead: set[str] = set()
        """Bridges that have died, and are counted yet."""
        self._counted = True
        """Whether the share was told since it took more than its share: before, none of that is a surplus."""
        self._heard_of = False
        self._unable_until = 0.0

    def take(self, shard: int) -> bool:
        """Whether it may ask for that one, or has it already. It counts as held, until it is `lost`."""
        if shard in self._held or len(self._held) < self.share:
            self._held.add(shard)
            return True
        return False

    def took(self, shard: int, dead: str | None) -> None:
        """It holds that one now. `dead`: the bridge that has died with it, and is to count no more."""
        self._held.add(shard)
        if dead and self.shared:
            self._dead.add(dead)
        if self.shared and (dead or len(self._held) > self.share):
            self._counted = False
            self._urgent.set()

    def lost(self, shard: int) -> None:
        """It does not hold that one, or no longer."""
        self._held.discard(shard)

    def surplus(self, shard: int) -> bool:
        """Whether that one is to be given up, so that another bridge can take it."""
        return self.shared and self._counted and shard in sorted(self._held)[self.share :]

    def unable(self) -> None:
        """No epoch can begin here. For a while it does not count, so that bridges that can work get all shards."""
        self._unable_until = self._clock.monotonic() + self._limits.unable

    def leave(self) -> None:
        """Count no more, so that the others' shares grow at once: `run` says so, and returns."""
        self._leaving = True
        self._urgent.set()

    def resize(self, shards: int) -> None:
        """There are that many now. The share in a new one is taken at once: no bridge listens there yet."""
        if shards != self.shards:
            self.shards = shards
            self._urgent.set()

    async def run(self) -> None:
        """Give signs of life, until it is time to leave. Raises Refused where that never was permitted."""
        while self.shared:
            self._urgent.clear()
            leaving = self._leaving
            away = leaving or self._clock.monotonic() < self._unable_until
            try:
                roster = self._roster()
                while self._dead:
                    await roster.sign_of_life(next(iter(self._dead)), 0)
                    self._dead.pop()
                place, count = await roster.sign_of_life(self._instance, 0 if away else self._limits.life_ms)
                self._heard_of = self._counted = True
                self._answered = self._clock.monotonic()
                if not away:
                    self.share = self.shards // count + (place < self.shards % count)
                elif not count:
                    self.share = self.shards  # no other bridge is there
            except (NotConnected, Fenced, Refused) as error:
                if self._clustered:  # the sources report what is wrong with Redis, and which are at work
                    if self._clock.monotonic() - self._answered > self._limits.alone:
                        self.share = self.shards
                elif isinstance(error, Refused) and not self._heard_of and not leaving:
                    raise
            if leaving:
                return
            await self._clock.wait(self._urgent, self._limits.sign_of_life)
