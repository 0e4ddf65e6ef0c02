"""The lease of one shard, as this bridge waits for it, has it, and gives it back.

Who may ask for it is said by `membership.py`; whether it is given, by Redis (`acquire.lua`).
"""

import asyncio
from contextlib import suppress

from bridge.clock import Clock
from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Held, Lease
from bridge.redis.source.membership import Members
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.subscription import Subscription
from bridge.tasks import happens
from bridge.telemetry.shard import ShardTelemetry

STANDBY_POLL = 0.5
"""Seconds between a standby's attempts to take the lease."""
SHARE_CHECK = 0.5
"""Seconds between looks at whether another bridge is to have the shard."""
HAND_OVER_SECONDS = 2.0
"""How long the shard waits for the broker before another bridge gets it: its deadlines pass meanwhile."""
HAND_OVER_POLL = 0.02


class Tenure:
    """See the module."""

    def __init__(  # noqa: PLR0913 - of which shard, for whom, among whom, whom to tell
        self,
        shard: int,
        instance: str,
        members: Members,
        outbox: Outbox,
        *,
        stopping: asyncio.Event,
        clock: Clock,
        telemetry: ShardTelemetry,
    ) -> None:
        self._shard = shard
        self._instance = instance
        self._members = members
        self._outbox = outbox
        self._stopping = stopping
        self._clock = clock
        self._telemetry = telemetry
        self._fence: int | None = None
        self.stood_by = False
        """Whether it has waited for the lease: so Redis serves us."""

    async def acquire(self, ledger: Ledger, primary: Primary, shards: int) -> Lease | None:
        """The lease, once it is ours; None when stopped before, or when another server is the primary."""
        awaited = None
        while not self._stopping.is_set():
            if self._members.take(self._shard):
                lease = await self._ask(ledger, shards)
                if isinstance(lease, Lease):
                    return lease
                if lease.holder != awaited:
                    awaited = lease.holder
                    self._telemetry.lease_awaited(lease.holder)
            else:
                self._outbox.hand_over()
                self._telemetry.lease_left()
            self.stood_by = True
            await happens(self._stopping, STANDBY_POLL)
            if await primary.successor() is not None:
                return None  # the lease is kept there; that of a server that is cut off ends by itself
        return None

    async def _ask(self, ledger: Ledger, shards: int) -> Lease | Held:
        """Ask for the lease, of a shard that we may take."""
        lease: Lease | Held | None = None
        try:
            lease = await ledger.acquire(self._instance, shards)
        finally:
            if not isinstance(lease, Lease):
                self._fence = None
                self._members.lost(self._shard)
                self._outbox.hand_over()
        if isinstance(lease, Lease):
            self._fence = lease.fence
            self._outbox.open()
            self._telemetry.lease_acquired(lease.fence, first=lease.former is None)
        return lease

    async def watch_share(self, subscription: Subscription) -> None:
        """End the subscription when another bridge is to have the shard: what was received is handled yet."""
        while self._members.shared:
            await self._clock.sleep(SHARE_CHECK)
            if self._members.surplus(self._shard):
                subscription.end("handed over: another bridge has fewer shards", Ending.HANDED_OVER)
                return

    async def hand_over(self, ledger: Ledger, heard: int) -> None:
        """Let another bridge have the shard, with an empty outbox if the broker takes it soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                while self._outbox.depth:
                    await self._clock.sleep(HAND_OVER_POLL)
        self._outbox.hand_over()
        await self.release(ledger, heard)

    async def release(self, ledger: Ledger, heard: int) -> None:
        """Let another bridge have the lease at once. It is told how many notifications were handled."""
        fence, self._fence = self._fence, None
        self._members.lost(self._shard)
        if fence is not None:
            with suppress(NotConnected, Refused):
                await ledger.release(fence, heard)
                self._telemetry.lease_released()

    def elsewhere(self) -> None:
        """Another server is the primary: what was held on the former one is of no use."""
        self._fence = None
