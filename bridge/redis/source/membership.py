"""Which bridges are members, and how many shards each may hold: so several bridges share the shards evenly.

Each bridge gives a sign of life. The reply says how many members there are, and its own position among them. With `s`
shards and `n` bridges each may hold `s // n`, and the first `s % n` of them one more. A bridge that holds too many
gives up the last ones; a bridge that holds too few takes what is free. A bridge that has just started counts once it
could take over hot what the others hold, so handing a shard over to it opens no gap.

This only spreads the load. No bridge may change a shard without its lease. Correctness does not depend even on the
lease, but on atomic claims and their ids. So bridges that disagree about the members do no harm.
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
        """`roster`: returns that of the server that is the primary now; it may raise NotConnected.

        `clustered`: the shards are those of a cluster. Their number may change, and they are on several servers.
        """
        self._clock = runtime.clock
        self._limits = runtime.limits.source
        self._instance = runtime.instance
        self._broker = runtime.broker
        self._roster = roster
        self.shards = shards
        """How many there are now."""
        self.shared = clustered or shards > 1
        """Whether bridges share them. The lease of a single shard goes to the first bridge that asks."""
        self._clustered = clustered
        self._leaving = False
        self._urgent = asyncio.Event()
        """The next sign of life is due at once."""
        self._answered = self._clock.monotonic()
        self.share = 0 if self.shared else shards
        """How many shards this bridge may hold."""
        self._held: set[int] = set()
        """The shards that it holds, or is about to ask for."""
        self._kept = dict[int, float]()
        """Shards that no other bridge took, and how long they are kept: a time on the bridge's clock, in seconds."""
        self._dead: set[str] = set()
        """Bridges that have died, and are still counted."""
        self._counted = True
        """Whether the share was read again since it took more than that. Until then it has no surplus."""
        self._heard_of = False
        self._unable_until = 0.0
        self._brokerless = False
        """Whether it was unable because its broker was away, and has not counted since."""
        self._joined = False
        self._prepared = set[int]()
        """Shards that it could take over hot since it started, or that no other bridge held."""

    def take(self, shard: int) -> bool:
        """Whether this bridge may ask for that shard, or has it already. It then counts as held until it is `lost`."""
        if shard in self._held or len(self._held) < self.share:
            self._held.add(shard)
            return True
        return False

    def took(self, shard: int, dead: str | None) -> None:
        """This bridge holds that shard now. `dead`: the bridge that held it and died, and should no longer count."""
        self._held.add(shard)
        if dead and self.shared:
            self._dead.add(dead)
        if self.shared and (dead or len(self._held) > self.share):
            self._counted = False
            self._urgent.set()

    def prepared(self, shard: int) -> None:
        """This bridge could take over that shard hot, or no other bridge holds it."""
        if self.shared and shard not in self._prepared:
            self._prepared.add(shard)
            if len(self._prepared) == self.shards:
                self._urgent.set()

    def lost(self, shard: int) -> None:
        """This bridge does not hold that shard, or no longer does."""
        self._held.discard(shard)

    def surplus(self, shard: int) -> bool:
        """Whether that shard should be given up, so that another bridge can take it."""
        kept = self._clock.monotonic() < self._kept.get(shard, 0)
        return self.shared and self._counted and not kept and shard in sorted(self._held)[self.share :]

    def keep(self, shard: int) -> None:
        """The bridge that should have that shard did not take it. This one keeps it for a while."""
        self._kept[shard] = self._clock.monotonic() + self._limits.unable

    def unable(self, *, broker: bool = False) -> None:
        """No epoch can begin here. This bridge does not count for a while, so bridges that can work get all shards.

        `broker`: others reach the broker, this one does not. It does not count before that is back, however long.
        """
        self._unable_until = self._clock.monotonic() + self._limits.unable
        self._brokerless = self._brokerless or broker

    @property
    def works(self) -> bool:
        """Whether epochs can begin here: it has started, was able to work lately, and is not about to leave."""
        return self._joined and not self._leaving and self._clock.monotonic() >= self._unable_until

    @property
    def counts(self) -> bool:
        """Whether it has a share: it works, and another bridge does not have to deliver in its place."""
        return self.works and (self._broker.up or not self._brokerless)

    def leave(self) -> None:
        """Stop counting, so that the others' shares grow at once. `run` announces that, and returns."""
        self._leaving = True
        self._urgent.set()

    def resize(self, shards: int) -> None:
        """The number of shards has changed. The share in new ones is taken at once: no bridge listens there yet."""
        if shards != self.shards:
            self.shards = shards
            self._urgent.set()

    async def run(self) -> None:
        """Give signs of life, until it is time to leave. Raises Refused where Redis has never permitted that."""
        joins_at = self._clock.monotonic() + self._limits.join  # whatever it has heard by then
        while self.shared:
            self._urgent.clear()
            leaving = self._leaving
            joined = 0 < self.shards <= len(self._prepared) or self._clock.monotonic() >= joins_at
            self._joined = self._joined or joined
            away = not self.counts
            self._brokerless = self._brokerless and away
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
