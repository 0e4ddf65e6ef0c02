"""The lease of one shard, as this bridge waits for it, has it, and gives it back.

Which bridge may ask for it is decided by `membership.py`; whether it is granted, by Redis (`acquire.lua`).
"""

from contextlib import suppress

from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Held, Lease
from bridge.redis.source.membership import Members
from bridge.redis.source.phases import Phase, Phases
from bridge.redis.source.stop import Stop
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.subscription import Subscription


class Tenure:
    """See the module."""

    def __init__(self, shard: Shard, members: Members, phases: Phases, stop: Stop) -> None:
        self._number = shard.number
        self._outbox = shard.outbox
        self._telemetry = shard.telemetry
        self._settings = shard.runtime.settings
        self._instance = shard.runtime.instance
        self._clock = shard.runtime.clock
        self._limits = shard.runtime.limits.source
        self._members = members
        self._phases = phases
        self._stop = stop
        self._fence: int | None = None

    async def acquire(self, ledger: Ledger, primary: Primary) -> Lease | None:
        """The lease, once it is ours; None when stopped before, or when another server is the primary."""
        awaited = None
        while not self._stop.given:
            if self._members.take(self._number):
                lease = await self._ask(ledger)
                if isinstance(lease, Lease):
                    return lease
                if lease.holder != awaited:
                    awaited = lease.holder
                    self._telemetry.lease_awaited(lease.holder)
            else:
                self._outbox.pause()
                self._telemetry.lease_left()
            self._phases.enter(Phase.STANDING_BY)
            await self._clock.wait(self._stop.event, self._limits.standby_poll)
            if await primary.successor() is not None:
                return None  # the lease is kept there; that of a server that is cut off ends by itself
        return None

    async def _ask(self, ledger: Ledger) -> Lease | Held:
        """Ask for the lease, of a shard that we may take."""
        lease: Lease | Held | None = None
        try:
            lease = await ledger.acquire(self._instance, self._settings.shards)
        finally:
            if not isinstance(lease, Lease):
                self._fence = None
                self._members.lost(self._number)
                self._outbox.pause()
        if isinstance(lease, Lease):
            self._fence = lease.fence
            self._outbox.open()
            self._telemetry.lease_acquired(lease.fence, first=lease.former is None)
            if lease.forgotten:
                self._telemetry.ledger_repaired(lease.forgotten)
        return lease

    async def watch_share(self, subscription: Subscription) -> None:
        """End the subscription when another bridge is to have the shard: what was received is still handled."""
        while self._members.shared:
            await self._clock.sleep(self._limits.share_check)
            if self._members.surplus(self._number):
                subscription.end("handed over: another bridge has fewer shards", Ending.HANDED_OVER)
                return

    async def hand_over(self, ledger: Ledger, heard: int) -> None:
        """Let another bridge have the shard, with an empty outbox if the broker takes it soon."""
        with suppress(TimeoutError):
            async with self._clock.timeout(self._limits.hand_over):
                while self._outbox.depth:
                    await self._clock.sleep(self._limits.hand_over_poll)
        self._outbox.pause()
        await self.release(ledger, heard)

    async def release(self, ledger: Ledger, heard: int) -> None:
        """Let another bridge have the lease at once, and know how many notifications were handled."""
        fence, self._fence = self._fence, None
        self._members.lost(self._number)
        if fence is not None:
            with suppress(NotConnected, Refused):
                await ledger.release(fence, heard)
                self._telemetry.lease_released()

    def elsewhere(self) -> None:
        """Another server is the primary: what was held on the former one is of no use."""
        self._fence = None
