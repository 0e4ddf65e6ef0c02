"""The source of one shard: one epoch after the other, for as long as the process lives.

The order of each: primary located → server inspected → batch in doubt of the last epoch sent again (to the same server
only) → lease under a new fence → subscription confirmed → gap opened → epoch. It ends for a reason, and the next one
begins, after a back-off that is reset only once the gap is closed: a connection, or a mark, alone proves nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from bridge.backoff import Backoff
from bridge.clock import Clock
from bridge.endings import Ending
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.expiration import Identity
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.factory import Assembly
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.audit import Trust
from bridge.redis.protocol.calls import Batch, Lease
from bridge.redis.protocol.endings import EpochEnded, Missed
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.schedule import Schedule
from bridge.redis.source.lease import Tenure
from bridge.redis.source.membership import Members
from bridge.redis.wire import notify_flags as notifications
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.errors import Fenced
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.server import inspect, require
from bridge.redis.wire.subscription import Subscription
from bridge.redis.wire.topology import LedgerFinder, Topology
from bridge.settings import Settings
from bridge.tasks import happens, run_together
from bridge.telemetry.shard import ShardTelemetry

RESEND_PAUSE = 1.0
"""Seconds, at most, between attempts to have a batch in doubt answered."""
RELEASE_SECONDS = 2.0
"""For giving up the lease, when all else is over."""
FAILOVER_PAUSE = 1.0
"""Seconds, at most, between attempts to begin an epoch where another server may be named at any moment."""


class RedisSource:
    """Finds expirations and claims them into the outbox, until it is stopped."""

    def __init__(  # noqa: PLR0913 - which shard, among whom, whom to tell
        self,
        settings: Settings,
        instance: str,
        clock: Clock,
        telemetry: ShardTelemetry,
        members: Members,
        *,
        shard: int = 0,
        wake: Callable[[], None] = lambda: None,
        topology: Topology | None = None,
        cause: str = "start",
        fatal: Callable[[], bool] = lambda: True,
    ) -> None:
        """`members`: the bridges that share the shards. `wake` is called when there may be more in the outbox.

        With the `topology` of a cluster, the shard is the ledger of that number, of one of its primaries. `cause`: of
        the first gap. `fatal`: whether it is to raise what it is refused with, before it was ever served.
        """
        endpoint = Endpoint.of(settings, clock=clock)
        self._settings = settings
        self._shard = shard
        self._members = members
        self._topology = topology
        self._endpoint = endpoint
        self._instance = instance
        self._clock = clock
        self.telemetry = telemetry
        self._primary = Primary(endpoint, None if topology is None else LedgerFinder(topology, shard))
        self._client = self._primary.client
        self._names = Names(settings.namespace, endpoint.db, shard)
        self._others = tuple(self._names.others(settings.shards)) if topology is None else ()
        """The other shards on the same server."""
        self._ledger = Ledger(self._client, endpoint, self._names, self._others)
        limit = -(-settings.outbox_limit // settings.shards)
        identity = Identity(settings.source, endpoint.db)
        self.outbox = Outbox(self._ledger, identity, limit, telemetry, wake, shard=shard)
        self._backoff = Backoff(most=FAILOVER_PAUSE) if endpoint.finder else Backoff()
        self._stopping = asyncio.Event()
        self._moved = False
        """Whether it stops because the ledger is that of no primary any more."""
        self._tenure = Tenure(
            shard, instance, members, self.outbox, stopping=self._stopping, clock=clock, telemetry=telemetry
        )
        self._subscription: Subscription | None = None
        self._in_doubt: Batch | None = None
        self._heard = 0
        """Notifications of expirations handled: kept here, because Redis may not know of the last ones."""
        self._trust = Trust()
        self._cause = cause
        self._fatal = fatal
        self.refused = False
        """Whether Redis has ever refused us."""
        self._served = False
        self._began = 0.0
        self._in_epoch = False
        self._leased = False
        """Whether an epoch is about to begin, with the lease."""
        self._schedule = Schedule(clock)
        self._assembly = Assembly(
            settings, self._names, self._others, topology, self.outbox, self._schedule, clock, telemetry, self._healthy
        )
        if endpoint.known:
            telemetry.node_named(str(endpoint))

    @property
    def ledger(self) -> Ledger:
        """The scripts, on the server that is the primary now."""
        return self._ledger

    @property
    def in_epoch(self) -> bool:
        """Whether it is at work."""
        return self._in_epoch

    def redis_ms(self) -> float:
        """Redis's clock now, in ms, as the last reply told it."""
        return self._schedule.redis_ms()

    async def run(self) -> None:
        """Work until `stop`. Raises Refused where Redis never served us: somebody has to fix the settings."""
        while not self._stopping.is_set():
            try:
                await self._epoch()
            except Missed as error:
                if self._trust.doubt(self._clock.monotonic() - self._began):
                    self.telemetry.audit_distrusted()
                self._ended(error.ending, str(error))
                await self._pause(self._backoff.next())
            except EpochEnded as error:
                self._ended(error.ending, str(error))
                if error.ending is Ending.DEMOTED:
                    self.outbox.hand_over()
                if error.ending is Ending.HANDED_OVER:
                    await self._tenure.hand_over(self._ledger, self._heard)
                else:
                    await self._pause(self._backoff.next())
            except NotConnected as error:
                await self._failed(Ending.CONNECTION_LOST, error)
            except Refused as error:
                self.refused = True
                if not self._served and not self._tenure.stood_by and self._fatal():
                    raise
                self.outbox.hand_over()  # whoever can work here delivers, and we may not settle
                await self._failed(Ending.REFUSED, error)
        await self._resend()

    def stop(self, reason: str = "shutting down", ending: Ending = Ending.SHUTDOWN) -> None:
        """Handle what was received, and let `run` return."""
        self._stopping.set()
        self._moved = ending is Ending.SLOTS_MOVED
        if self._subscription is not None:
            self._subscription.end(reason, ending)

    async def close(self) -> None:
        """Release the lease, so that a standby takes over at once, and give the connections back."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._tenure.release(self._ledger, self._heard)
        except TimeoutError:
            pass  # it runs out
        finally:
            with suppress(OSError):
                await self._primary.close()

    # One epoch.

    async def _epoch(self) -> None:
        self._leased = False
        await self._locate()
        require(await inspect(self._client, self._endpoint), self._endpoint)
        configure = self._settings.redis_notifications == "configure"
        await notifications.switch_on(self._client, self._endpoint, self.telemetry, configure=configure)
        await self._agree()
        await self._resend()
        self._schedule.set_clock(await self._ledger.now_ms())  # delivery begins with the lease, and tells lags
        lease = await self._tenure.acquire(self._ledger, self._primary, self._settings.shards)
        if lease is None:
            return
        self._leased = True
        self._heard = max(lease.heard, self._heard) if lease.former == self._instance else lease.heard
        ears = await self._assembly.listen(self._client, self._endpoint, self._heard)
        self._subscription = ears.subscription
        self._began = self._clock.monotonic()
        try:
            if self._trust.lost:
                ears = replace(ears, complete=False)
            gap = await self._open_gap(lease)
            await self._work(self._assembly.epoch(ears, self._ledger, self._endpoint, lease, gap))
        finally:
            self._subscription = None
            ears.subscription.end("the epoch is over")

    async def _work(self, epoch: Epoch) -> None:
        """Until the epoch ends, with the reason."""
        if self._stopping.is_set():
            return
        work = {
            "epoch": epoch.run(),
            "subscription-watch": epoch.subscription.watch(),
            "scan": epoch.scan.run(),
            "flags-watch": notifications.watch(self._client, self._endpoint),
            "primary-watch": self._watch_primary(),
            "share-watch": self._tenure.watch_share(epoch.subscription),
        }
        if epoch.moves is not None:
            work["moves"] = epoch.moves.run()
        try:
            await run_together(work)
        finally:
            self._in_doubt, self._heard = epoch.in_doubt, epoch.heard

    async def _locate(self) -> None:
        """Work on the server that is the primary now."""
        former = self._primary.endpoint
        if former.finder:
            self.outbox.hand_over()  # until the lease is ours where the primary is
        if not await self._primary.locate():
            return
        self._endpoint, self._client = self._primary.endpoint, self._primary.client
        self._ledger = Ledger(self._client, self._endpoint, self._names, self._others)
        self.outbox.move(self._ledger)
        # What it would claim may still be there to expire: then it would have two ids. The gap covers it.
        self._in_doubt = None
        self._tenure.elsewhere()
        self.telemetry.primary_located(str(self._endpoint), str(former) if former.known else None)

    async def _agree(self) -> None:
        """Raise unless all bridges count the same shards: a key belongs to one of so many."""
        if self._topology is not None:
            return  # who has which key is said by the cluster
        shards = await self._ledger.agree(self._settings.shards)
        if shards != self._settings.shards:
            raise Refused(
                f"the ledger in Redis at {self._endpoint} has {shards} shards, and BRIDGE_SHARDS is"
                f" {self._settings.shards}",
                f"set BRIDGE_SHARDS to {shards} (how to change the number: deploy/docs/how-to/shards.md)",
            )

    async def _watch_primary(self) -> None:
        """End the epoch when this server is the primary no more: it would say of what expires that it was deleted."""
        raise EpochEnded(Ending.DEMOTED, await self._primary.lost())

    async def _resend(self) -> None:
        """Have the batch in doubt answered, whatever its epoch has come to: what it claims must not be lost."""
        backoff = Backoff(most=RESEND_PAUSE)
        while self._in_doubt is not None:
            try:
                await self._ledger.apply(self._in_doubt)
                self._heard = self._in_doubt.heard
            except NotConnected as error:
                if not self._stopping.is_set():
                    raise  # the primary may be another server by now
                if self._moved:  # the script finds its keys elsewhere, and whoever has them goes on
                    self._in_doubt = None
                    return
                delay = backoff.next()
                self.telemetry.redis_unreached(str(error), delay)
                await self._clock.sleep(delay)  # until the time to drain is over
            except (Fenced, Refused):
                self._in_doubt = None  # it can never be applied any more; the gap covers it
            else:
                self._in_doubt = None

    async def _open_gap(self, lease: Lease) -> Gap:
        start_ms = await self._ledger.now_ms()
        cause = self._cause
        if lease.former is None and self._served:
            cause = f"{cause}; the lease was gone (flushed, deleted or evicted)"
        seen_ms = lease.seen_ms
        if self._topology is not None:
            seen_ms = self._topology.seen.since(str(self._endpoint), self._shard, seen_ms)
        opened_ms = start_ms if seen_ms is None else seen_ms
        self._in_epoch = True
        self.telemetry.gap_opened(cause, opened_ms, start_ms)
        return Gap(cause, opened_ms, start_ms)

    async def _failed(self, ending: Ending, error: BridgeError) -> None:
        """No epoch can begin, or one has ended, for a reason that may stay for long."""
        refused, attempt = ending is Ending.REFUSED, not self._in_epoch
        self._ended(ending, str(error))
        # With the lease, or if somebody must fix something, a bridge that can work shall have the shard.
        if attempt and (refused or self._leased) and self._members.shared:
            self._members.unable()
            await self._tenure.release(self._ledger, self._heard)
        await self._pause(self._backoff.next(), str(error), refused=refused)

    def _healthy(self, seen_ms: int) -> None:
        """A mark came back, and the gap is closed: the whole way works, the scan included. `seen_ms`: see `Epoch`."""
        if self._topology is not None:
            self._topology.seen.handled(str(self._endpoint), self._shard, seen_ms)
        self._served, self.refused = True, False
        self._backoff.reset()

    def _ended(self, ending: Ending, reason: str) -> None:
        self._cause = reason
        if self._topology is not None:
            self._topology.doubt()
        if self._in_epoch:  # else it was an attempt to begin one
            self._in_epoch = False
            why = Ending.SHUTDOWN if self._stopping.is_set() and ending is not Ending.SLOTS_MOVED else ending
            self.telemetry.epoch_ended(str(self._endpoint), why, reason)

    async def _pause(self, seconds: float, reason: str | None = None, *, refused: bool = False) -> None:
        """Sleep, unless stopped."""
        if reason is not None and not self._stopping.is_set():
            tell = self.telemetry.redis_refused if refused else self.telemetry.redis_unreached
            tell(reason, seconds)
        await happens(self._stopping, seconds)
