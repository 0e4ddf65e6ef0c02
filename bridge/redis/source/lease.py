"""The lease of one shard, as this bridge waits for it, has it, and gives it back.

Which bridge may ask for it is decided by `membership.py`; whether it is granted, by Redis (`acquire.lua`).
"""

from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass

from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.shard import Shard
from bridge.redis.epoch.standby import Standby
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Claim, Held, Lease
from bridge.redis.protocol.fingerprint import differences, packed, unpacked
from bridge.redis.source.membership import Members
from bridge.redis.source.phases import Phase, Phases
from bridge.redis.source.stop import Stop
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.subscription import Subscription
from bridge.settings import agreement


@dataclass(frozen=True, slots=True)
class Manner:
    """How a bridge asks for a lease."""

    late: bool
    """It leaves the lease to any other bridge that listens."""
    hot: bool
    """It could go on where the former holder was."""
    patient: bool
    """It leaves the lease to a bridge that could, if it could not itself."""
    helps: bool
    """It takes a free lease of another bridge's share, because that bridge cannot go on."""
    keeps: bool
    """It takes such a lease and keeps it, because that bridge does not take it at all."""


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
        self._broker = shard.runtime.broker
        self._members = members
        self._phases = phases
        self._stop = stop
        self._fence: int | None = None
        self._agreement = agreement(self._settings)
        self._fingerprint = packed(self._agreement)
        self._seen = self._fingerprint
        """The fingerprint that was compared last."""

    async def acquire(self, ledger: Ledger, primary: Primary, standby: Standby, *, late: bool) -> Lease | None:
        """The lease, once it is ours; None when stopped before, or when another server is the primary.

        `late`: it has only just begun to listen, so it lets others go first for a moment, if they listened before.
        Raises NotConnected: what listens meanwhile has ended.
        """
        awaited = None
        began = looked = self._clock.monotonic()
        free_since: float | None = None
        hot = helps = forsaken = False
        patient = late
        while not self._stop.given:
            manner = Manner(late=late and not hot, hot=hot, patient=patient, helps=helps, keeps=forsaken)
            lease = await self._ask(ledger, standby, manner)
            if isinstance(lease, Lease):
                return lease
            if lease.holder and lease.holder != awaited:
                awaited = lease.holder
                self._telemetry.lease_awaited(lease.holder)
            elif not lease.holder:
                self._telemetry.lease_left()
            was_hot, hot = hot, standby.held(lease.place) and standby.present
            self._telemetry.standby_listens(standby.buffered, hot=hot)
            if hot or not lease.holder:
                self._members.prepared(self._number)
            self._phases.enter(Phase.STANDING_BY)
            if was_hot or not hot:  # else it asks again at once, so that the others know
                await self._clock.wait(self._stop.event, self._limits.standby_poll)
            now = self._clock.monotonic()
            free_since = None if lease.holder else now if free_since is None else free_since
            free_for = 0.0 if free_since is None else now - free_since
            late = late and now - began < self._limits.yield_to_listener
            patient = free_for < self._limits.yield_to_heir
            helps = hot and self._members.counts and free_for >= self._limits.leave_to_share
            forsaken = self._members.works and free_for >= self._limits.forsaken  # claimed in time, whoever delivers
            if now - looked >= self._limits.successor_check:
                looked = now
                if await primary.successor() is not None:
                    return None  # the lease is kept there; that of a server that is cut off ends by itself
        return None

    async def _ask(self, ledger: Ledger, standby: Standby, manner: Manner) -> Lease | Held:
        """Ask for the lease: of a shard that we may hold in any case, of another one only if its holder has died."""
        entitled = self._members.take(self._number)
        claim = Claim(
            self._instance,
            self._settings.shards,
            listens=standby.present,
            entitled=entitled or manner.helps or manner.keeps,
            able=self._broker.up,
            yields=not self._members.shared,
            late=manner.late,
            hot=manner.hot,
            patient=manner.patient,
            fingerprint=self._fingerprint,
            keeps_values=self._settings.values is not None,
        )
        lease: Lease | Held | None = None
        try:
            lease = await ledger.acquire(claim)
        finally:
            if not isinstance(lease, Lease):
                self._fence = None
                self._members.lost(self._number)
                self._outbox.pause()
        self._compare(lease.fingerprint)
        if isinstance(lease, Lease):
            self._fence = lease.fence
            self._members.took(self._number, lease.former if lease.silent_ms is not None else None)
            self._members.prepared(self._number)
            if manner.keeps and not entitled:
                self._members.keep(self._number)
            self._outbox.open()
            self._telemetry.lease_acquired(lease.fence, first=lease.former is None)
            if lease.forgotten:
                self._telemetry.ledger_repaired(lease.forgotten)
        return lease

    def _compare(self, fingerprint: bytes) -> None:
        """Say how the bridge that holds the lease, or held it last, differs from this one."""
        if fingerprint and fingerprint != self._seen:
            self._seen = fingerprint
            if found := differences(unpacked(fingerprint), self._agreement):
                self._telemetry.settings_differ(found)

    def watches(self, ledger: Ledger, subscription: Subscription) -> dict[str, Coroutine[object, object, None]]:
        """What looks at other bridges, and may end an epoch for their sake, by name: to be run beside it."""
        return {
            "share-watch": self._watch_share(ledger, subscription),
            "broker-watch": self._watch_broker(ledger, subscription),
            **({"standby-count": self._count_standbys(ledger, subscription)} if self._settings.http_port else {}),
        }

    async def _watch_share(self, ledger: Ledger, subscription: Subscription) -> None:
        """End the subscription when another bridge is to have the shard: what was received is still handled.

        It waits until a bridge that may take the shard could go on. It does not wait for ever for one that listens.
        Where none does, the bridge whose share it is cannot take it, and this one keeps it for a while.
        """
        since: float | None = None
        while self._members.shared:
            await self._clock.tick(self._limits.share_check)
            if not self._members.surplus(self._number):
                since = None
                continue
            now = self._clock.monotonic()
            since = now if since is None else since
            waits = subscription.present and now - since < self._limits.forsaken
            with suppress(NotConnected, Refused):  # the epoch will notice
                if waits and not await ledger.has_claimant(self._instance):
                    continue
                if not waits and await self._listens_alone(ledger, subscription):
                    self._members.keep(self._number)
                    since = None
                    continue
                subscription.finish("handed over: another bridge has fewer shards", Ending.HANDED_OVER)
                return

    async def _listens_alone(self, ledger: Ledger, subscription: Subscription) -> bool:
        """Whether no other bridge listens here; False where Redis does not say. May raise NotConnected."""
        try:
            return subscription.present and await ledger.listeners() <= 1
        except Refused:
            return False

    async def _watch_broker(self, ledger: Ledger, subscription: Subscription) -> None:
        """End the subscription when this bridge has lost its broker, and one that stands by reaches its own."""
        lost_at: float | None = None
        while True:
            await self._clock.tick(self._limits.share_check)
            now = self._clock.monotonic()
            lost_at = None if self._broker.up else lost_at if lost_at is not None else now
            if lost_at is None or now - lost_at < self._limits.broker_patience:
                continue
            with suppress(NotConnected, Refused):  # the epoch will notice
                if await ledger.has_able_standby(self._instance):
                    if self._members.shared:
                        self._members.unable(broker=True)
                    reason = "handed over: the broker cannot be reached from here, and another bridge reaches it"
                    subscription.finish(reason, Ending.HANDED_OVER)
                    return

    async def _count_standbys(self, ledger: Ledger, subscription: Subscription) -> None:
        """For the status page, and so only where there is one: how many bridges could take over without a gap."""
        while True:
            with suppress(NotConnected):  # the epoch will notice
                try:
                    listeners = await ledger.listeners()
                except Refused:
                    self._telemetry.standbys_counted(None)
                else:
                    self._telemetry.standbys_counted(max(listeners - subscription.present, 0))
            await self._clock.tick(self._limits.standby_count)

    async def hand_over(self, ledger: Ledger, heard: int, place: bytes) -> None:
        """Let another bridge have the shard, with an empty outbox if the broker takes it soon."""
        with suppress(TimeoutError):
            async with self._clock.timeout(self._limits.hand_over):
                while self._outbox.depth and self._broker.up:
                    await self._clock.sleep(self._limits.hand_over_poll)
        self._outbox.pause()
        await self.release(ledger, heard, place)

    async def distrust(self, ledger: Ledger) -> None:
        """Let the next epoch open a gap: what was heard may not be everything that was notified."""
        if self._fence is not None:
            with suppress(NotConnected, Refused):
                await ledger.distrust(self._fence)

    async def release(self, ledger: Ledger, heard: int, place: bytes, *, left: bool = False) -> None:
        """Let another bridge have the lease at once, and go on where this one was: see `Ledger.release`."""
        fence, self._fence = self._fence, None
        self._members.lost(self._number)
        if fence is not None:
            with suppress(NotConnected, Refused):
                await ledger.release(fence, heard, place, left=left or self._stop.given)
                self._telemetry.lease_released()

    def elsewhere(self) -> None:
        """Another server is the primary: what was held on the former one is of no use."""
        self._fence = None
