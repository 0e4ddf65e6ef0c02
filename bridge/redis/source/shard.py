"""The source of one shard: one epoch after the other, for as long as the process lives.

The order of each (`phases.py`): primary located → server inspected → batch in doubt of the last epoch sent again (to
the same server only) → subscription confirmed → lease under a new fence → its boundary heard → what the former epoch
left inherited, or a gap opened → epoch. An epoch ends for a reason, and the next one begins after a back-off. The
back-off is reset only when a mark is back while no gap is open: a connection, or a mark, alone proves nothing.
"""

from collections.abc import Callable
from contextlib import suppress

from bridge.endings import Ending
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.redis.epoch.attempt import Attempt, Ears, listen
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.filling import filler_of, keeping
from bridge.redis.epoch.protection import protecting
from bridge.redis.epoch.shard import ClusterState, Runtime, Shard
from bridge.redis.epoch.standby import Standby
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.audit import Trust
from bridge.redis.protocol.budget import Budget
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.endings import DEAF, UNTRUSTWORTHY, EpochEnded, Missed
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.schedule import RedisClock
from bridge.redis.protocol.takeover import Inheritance
from bridge.redis.source.gaps import Gaps
from bridge.redis.source.lease import Tenure
from bridge.redis.source.leftover import Leftover
from bridge.redis.source.membership import Members
from bridge.redis.source.parts import backoff_of, outbox_of
from bridge.redis.source.phases import Phase, Phases
from bridge.redis.source.preparation import prepare
from bridge.redis.source.relief import Relief, Reliefs
from bridge.redis.source.stop import Stop
from bridge.redis.wire import notify_flags as notifications
from bridge.redis.wire.errors import Fenced
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.topology import LedgerFinder
from bridge.tasks import run_together
from bridge.telemetry.shard import ShardTelemetry


class RedisSource:
    """Finds expirations and claims them into the outbox, until it is stopped."""

    def __init__(
        self,
        runtime: Runtime,
        telemetry: ShardTelemetry,
        members: Members,
        wake: Callable[[], None] = lambda: None,
        *,
        number: int = 0,
        cluster: ClusterState | None = None,
        cause: str = "start",
        fatal: Callable[[], bool] = lambda: True,
    ) -> None:
        """`members`: the bridges that share the shards. `wake` is called when there may be more in the outbox.

        With the state of a cluster, the shard is the ledger of that number, on one of the primaries. `cause`: of the
        first gap. `fatal`: whether a refusal before the first success ends the process.
        """
        settings, endpoint = runtime.settings, runtime.endpoint().bound()
        names = Names(settings.namespace, endpoint.db, number)
        others = tuple(names.others(settings.shards)) if cluster is None else ()
        self._primary = Primary(endpoint, None if cluster is None else LedgerFinder(cluster.topology, number))
        self.ledger = Ledger(self._primary.commands, names, runtime.limits.ledger, others)
        """The scripts, on the server that is the primary now."""
        self.outbox = outbox_of(runtime, self.ledger, names, telemetry, wake)
        self.telemetry = telemetry
        self.phases = Phases()
        self.refused = False
        """Whether Redis has refused us, and has not served us since."""
        self._runtime = runtime
        budget = Budget(runtime.limits.epoch)
        self._shard = Shard(runtime, names, others, self.outbox, RedisClock(runtime.clock), telemetry, budget, cluster)
        self._members = members
        self._stop = Stop()
        self._tenure = Tenure(self._shard, members, self.phases, self._stop)
        self._leftover = Leftover(self._shard)
        self._reliefs = Reliefs(self._shard, self.phases)
        self._relief: Relief | None = None
        """A session that will take over from the present one."""
        self._trust = Trust(runtime.limits.epoch)
        self._backoff = backoff_of(runtime, endpoint)
        self._gaps = Gaps(self._shard, self.phases, cause)
        self._fatal = fatal
        self._ears: Ears | None = None
        self._began = 0.0
        if endpoint.known:
            telemetry.node_named(str(endpoint))

    def redis_ms(self) -> float:
        """Redis's clock now, in ms, as the last reply said."""
        return self._shard.redis_clock.now_ms()

    async def run(self) -> None:
        """Work until `stop`. Raises Refused where Redis never served us: the settings have to be fixed."""
        while not self._stop.given:
            self.phases.enter(Phase.LOCATING)
            try:
                await self._attempt()
            except EpochEnded as error:
                await self._epoch_ended(error)
            except NotConnected as error:
                await self._failed(Ending.CONNECTION_LOST, error)
            except Refused as error:
                self.refused = True
                if not self.phases.served and self._fatal():
                    raise
                self.outbox.pause()  # a bridge that can work here delivers, and we may not settle
                await self._failed(Ending.REFUSED, error)
        await self._leftover.resend(self.ledger, self._stop)
        self.phases.enter(Phase.STOPPED)

    def stop(self, reason: str = "shutting down", ending: Ending = Ending.SHUTDOWN) -> None:
        """Handle what was received, and let `run` return."""
        self._stop.give(ending)
        if self._ears is not None:
            self._ears.subscription.finish(reason, ending)

    async def close(self) -> None:
        """Release the lease, so that a standby takes over at once, and give the connections back."""
        try:
            async with self._runtime.clock.timeout(self._runtime.limits.source.release):
                await self._tenure.release(self.ledger, self._leftover.heard, self._leftover.place)
        except TimeoutError:
            pass  # it runs out
        finally:
            self._listen_no_more()
            with suppress(OSError):
                await self._drop_relief()
                await self._primary.close()

    # One epoch.

    async def _attempt(self) -> None:
        relief, self._relief = self._relief, None
        ears = await (self._arrive() if relief is None else self._change_to(relief))
        primary = self._primary
        watches = {
            "subscription-watch": ears.subscription.watch(),
            "flags-watch": notifications.watch(primary.client, primary.endpoint, ears.flags),
            "relief-watch": self._await_relief(ears),
        }
        work = self._take_over_and_work(ears, late=relief is None)
        await run_together(watches | {"work": work}, until="work")

    async def _arrive(self) -> Ears:
        """Begin on the server that is the primary now, and listen."""
        shard, primary = self._shard, self._primary
        await self._locate()
        await prepare(shard, primary, self.ledger)
        await self._leftover.resend(self.ledger, self._stop)
        shard.redis_clock.set(await self.ledger.now_ms())  # delivery begins with the lease, and reports lags
        self._listen_no_more()
        self._ears = ears = await listen(primary.client, primary.endpoint, shard.names, self._runtime.instance)
        return ears

    async def _change_to(self, relief: Relief) -> Ears:
        """Go on with that session, on the same server. It has listened for a while."""
        self._listen_no_more()
        former, self._primary = self._primary, relief.primary
        self.ledger, self._ears = relief.ledger, relief.ears
        self.outbox.move(relief.ledger)
        await former.leave()
        await self._leftover.resend(self.ledger, self._stop)
        return relief.ears

    async def _await_relief(self, ears: Ears) -> None:
        self._relief = relief = await self._reliefs.ready(self._primary)
        ears.subscription.finish(f"relieved: {relief.reason}", Ending.RELIEVED)

    async def _drop_relief(self) -> None:
        relief, self._relief = self._relief, None
        if relief is not None:
            await relief.drop()

    async def _take_over_and_work(self, ears: Ears, *, late: bool) -> None:
        """Stand by until the lease is ours; then work until the epoch ends, with the reason."""
        shard, runtime = self._shard, self._runtime
        standby = Standby(ears, shard.names, runtime.clock, runtime.limits.epoch.mark)
        lease = await self._tenure.acquire(self.ledger, self._primary, standby, late=late)
        if lease is None:
            return
        self.phases.enter(Phase.TAKING_OVER)
        self._leftover.learn(lease)
        filler = filler_of(shard, self._primary, self.ledger, ears, self._gaps.cause)
        try:
            inheritance = await standby.take_over(lease, filler)
        except Fenced as error:
            raise EpochEnded(Ending.LEASE_LOST, f"lease lost: {error}") from error
        self._began = runtime.clock.monotonic()
        gap = await self._begin(lease, inheritance, len(ears.inbox))
        if self._stop.given:
            return
        attempt = Attempt(
            shard,
            self._primary.endpoint,
            self.ledger,
            lease,
            ears,
            gap,
            self._leftover.heard - (0 if inheritance is None else inheritance.excess),
            audited=ears.complete and not self._trust.lost,
            inheritance=inheritance,
        )
        epoch = Epoch(attempt, self._caught_up)
        watches = self._tenure.watches(self.ledger, ears.subscription) | {"primary-watch": self._watch_primary()}
        try:
            beside = keeping(shard, self._primary) | protecting(shard, self._primary)
            await run_together(epoch.tasks() | watches | beside)
        finally:
            self._leftover.by(epoch)

    async def _begin(self, lease: Lease, inheritance: Inheritance | None, hints: int) -> Gap:
        """The gap of the epoch: none if everything notified is inherited, and no gap was open."""
        inherits, filled = inheritance is not None, inheritance is not None and inheritance.filling is not None
        self.telemetry.lease_taken_over(lease.silent_ms, hints, hot=inherits and not filled, filled=filled)
        if inherits and not lease.gap_open:
            self.phases.enter(Phase.WATCHING)
            return Gap("", 0, 0)
        start_ms = await self.ledger.now_ms()
        self.phases.enter(Phase.RECONCILING)
        return self._gaps.open(lease, str(self._primary.endpoint), start_ms)

    def _listen_no_more(self) -> None:
        if self._ears is not None:
            self._ears.subscription.end("the epoch is over")
            self._ears = None

    async def _locate(self) -> None:
        """Work on the server that is the primary now."""
        former = self._primary.endpoint
        if former.finder:
            self.outbox.pause()  # until the lease is ours where the primary is
        if not await self._primary.locate():
            return
        found = self._primary.endpoint
        shard, limits = self._shard, self._runtime.limits.ledger
        self.ledger = Ledger(self._primary.commands, shard.names, limits, shard.others)
        self.outbox.move(self.ledger)
        self._leftover.forget_batch()
        self._tenure.elsewhere()
        self.telemetry.primary_located(str(found), str(former) if former.known else None)

    async def _watch_primary(self) -> None:
        """End the epoch when this server is no longer the primary: it would notify `del` of what expires."""
        raise EpochEnded(Ending.DEMOTED, await self._primary.lost())

    def _caught_up(self, redis_ms: int) -> None:
        """A mark is back, and the gap is closed: the whole way works, and everything up to then is handled."""
        self._gaps.caught_up(str(self._primary.endpoint), redis_ms)
        self.phases.enter(Phase.WATCHING)
        self.refused = False
        self._backoff.reset()

    # Its end.

    async def _epoch_ended(self, error: EpochEnded) -> None:
        if isinstance(error, Missed) and self._trust.doubt(self._runtime.clock.monotonic() - self._began):
            self.telemetry.audit_distrusted()
        self._end(error.ending, str(error))
        if error.ending is Ending.RELIEVED:
            return
        await self._drop_relief()
        if error.ending is Ending.DEMOTED:
            self.outbox.pause()
        if error.ending in UNTRUSTWORTHY:
            await self._tenure.distrust(self.ledger)
        if error.ending is Ending.HANDED_OVER:
            await self._tenure.hand_over(self.ledger, self._leftover.heard, self._leftover.place)
        elif not self._stop.given:
            self._listen_no_more()
            if error.ending in DEAF:  # a standby goes on without a gap, this one cannot
                await self._tenure.release(self.ledger, self._leftover.heard, self._leftover.place, left=True)
            await self._runtime.clock.wait(self._stop.event, self._backoff.next())

    async def _failed(self, ending: Ending, error: BridgeError) -> None:
        """No epoch can begin, or one has ended, for a reason that may last long."""
        refused, phase = ending is Ending.REFUSED, self.phases.now
        attempted = not self.phases.in_epoch
        self._end(ending, str(error))
        await self._drop_relief()
        if not self._stop.given:
            self._listen_no_more()
        # If this bridge has the lease, or its settings must be fixed, leave the shard to a bridge that can work.
        if attempted and (refused or phase is Phase.TAKING_OVER) and self._members.shared:
            self._members.unable()
            await self._tenure.release(self.ledger, self._leftover.heard, self._leftover.place)
        delay = self._backoff.next()
        if not self._stop.given:
            report = self.telemetry.redis_refused if refused else self.telemetry.redis_unreached
            report(str(error), delay)
        await self._runtime.clock.wait(self._stop.event, delay)

    def _end(self, ending: Ending, reason: str) -> None:
        """The epoch, or the attempt to begin one, is over."""
        self._gaps.cause = reason
        if self._shard.cluster is not None:
            self._shard.cluster.topology.doubt()
        if self.phases.in_epoch:
            why = Ending.SHUTDOWN if self._stop.given and ending is not Ending.SLOTS_MOVED else ending
            self.telemetry.epoch_ended(str(self._primary.endpoint), why, reason)
        self.phases.enter(Phase.ENDED)
