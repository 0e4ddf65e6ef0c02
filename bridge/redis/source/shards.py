"""All shards of the ledger: each is a source of its own, with a lease of its own; bridges share them (`membership.py`).

Each shard listens on its own connection, so that what one epoch has heard never reaches another. Hints of other shards'
keys are only counted.
"""

import asyncio

from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.ledger.roster import Roster
from bridge.redis.source.membership import Members
from bridge.redis.source.shard import RedisSource
from bridge.tasks import run_together
from bridge.telemetry.events import Telemetry


class Shards:
    """Find expirations and claim them into the outboxes, until stopped."""

    def __init__(self, runtime: Runtime, telemetry: Telemetry) -> None:
        settings = runtime.settings
        self.db = runtime.endpoint().db
        self.outbox = Outboxes(runtime.clock, runtime.limits.ledger)
        self._members = Members(runtime, self._roster, settings.shards)
        self._sources = [
            RedisSource(
                runtime,
                telemetry.shard(number, settings.shards),
                self._members,
                self.outbox.wake,
                number=number,
            )
            for number in range(settings.shards)
        ]
        for source in self._sources:
            self.outbox.add(source.outbox)

    def _roster(self) -> Roster:
        """The roster of a shard that is at work, on the server that is the primary; if none is, that of any shard."""
        at_work = (source for source in self._sources if source.phases.in_epoch)
        return next(at_work, self._sources[0]).ledger.roster

    @property
    def waiting(self) -> int:
        """Expirations in the outbox, as last heard."""
        return self.outbox.depth

    def redis_ms(self) -> float:
        """Redis's clock now, in ms, as the last reply said."""
        return max(source.redis_ms() for source in self._sources)

    async def run(self) -> None:
        """Work until `stop`. Raises Refused where Redis never served us: the settings have to be fixed."""
        work = {f"shard-{number}": source.run() for number, source in enumerate(self._sources)}
        await run_together({"members": self._members.run(), **work})
        self.outbox.drain()

    def stop(self) -> None:
        """Handle what was received, and let `run` return."""
        self._members.leave()
        for source in self._sources:
            source.stop()

    async def close(self) -> None:
        """Release the leases, so that standbys take over at once, and give the connections back."""
        await self.outbox.close()
        await asyncio.gather(*(source.close() for source in self._sources))
