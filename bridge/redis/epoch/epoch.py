"""One epoch: one fence and one subscription, from the gap that it opens with to the reason that it ends with.

One task writes, one script at a time: batches of hints as they come (`protocol/interpreter.py`), and touches when a
deadline is past, or a part of the ledger has to be walked. Its states are those of its gap (open, closing, closed) and
of its round (none, touched, marked).

Guarantees: when `run` ends, every hint that was received is handled, or is in `in_doubt`, or was dropped with the
epoch. The next epoch handles what was dropped, or its gap covers it. The ledger is never changed under an old fence.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import NoReturn

from bridge.endings import Ending
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.epoch.capturing import Capturing, captures_of
from bridge.redis.epoch.fields import Fields
from bridge.redis.epoch.migration import Migration, migrated_keys
from bridge.redis.epoch.scan import Scan
from bridge.redis.epoch.writer import Writer
from bridge.redis.protocol.audit import Audit, Reading
from bridge.redis.protocol.calls import Batch, State, Touch
from bridge.redis.protocol.canary import Canary
from bridge.redis.protocol.endings import EpochEnded, Missed
from bridge.redis.protocol.fields import FieldHints
from bridge.redis.protocol.followers import Followers
from bridge.redis.protocol.interpreter import Interpreter, OwnKeyLostError, Scope
from bridge.redis.protocol.marks import MarkLostError, Marks, Purpose, Round
from bridge.redis.protocol.notifications import NEEDED_FLAGS
from bridge.redis.protocol.operations import ClosedGap, gap_closed
from bridge.redis.protocol.pace import Pace
from bridge.redis.protocol.patterns import matcher
from bridge.redis.protocol.schedule import Schedule
from bridge.redis.protocol.walk import Walk
from bridge.redis.wire.errors import Fenced


class Epoch:
    """See the module."""

    def __init__(self, attempt: Attempt, caught_up: Callable[[int], None]) -> None:
        """`caught_up` is called with each time up to which everything is known to be handled: Redis's clock, in ms."""
        shard, ears, gap, inheritance = attempt.shard, attempt.ears, attempt.gap, attempt.inheritance
        runtime, names, limits = shard.runtime, shard.names, shard.runtime.limits.epoch
        matches = matcher(runtime.settings.bridged_keys(), shard.number, runtime.settings.shards)
        scope = Scope(names, ears.kinds, matches, limits, ears.scope, ears.word)
        self.heard = attempt.heard
        """Notifications of expirations that were handled, in all epochs."""
        self.place = attempt.lease.place if inheritance is not None and inheritance.filling is None else b""
        """How far the stream is handled; empty if the next epoch must not go on from there."""
        self._attempt = attempt
        self._node = str(attempt.endpoint)
        self._gap = gap
        self._walk = Walk(needed=gap.open)
        self._canary = Canary(names.canary, limits, frozenset(other.canary for other in shard.others))
        self._marks = Marks(attempt.heard, ears.word)
        migrated = None if shard.cluster is None else migrated_keys(attempt, shard.cluster)
        captures = captures_of(attempt)
        hints: FieldHints | None = None
        if fields := runtime.settings.bridged_fields():
            hints = FieldHints(names, matcher(fields, shard.number, runtime.settings.shards))
        self._interpreter = Interpreter(
            scope, ears.inbox, self._marks, self._canary, migrated, inheritance, Followers(hints, captures)
        )
        self._findings = self._interpreter.findings
        self._audit: Audit | None = None
        if attempt.audited:
            self._audit = Audit(Reading.parse(attempt.lease.audit), limits, goes_on=not gap.open)
        self._pace = Pace(runtime.clock, limits, gap, self._findings)
        self._scan = Scan(attempt, scope, self._findings, self._pace)
        self._migration: Migration | None = None
        if shard.cluster is not None and migrated is not None:
            self._migration = Migration(
                attempt, shard.cluster.topology, scope, migrated, scan=self._scan, walk=self._walk
            )
        self._budget = shard.budget
        self._writer = Writer(attempt)
        self._capturing = None if captures is None else Capturing(attempt, captures, self._writer)
        self._fields = None if hints is None else Fields(attempt, self._writer, self._marks, hints)
        if self._fields is not None and self._migration is not None:
            self._migration.searches.append(self._fields.again)
        self._schedule = Schedule(runtime.clock, shard.redis_clock, limits)
        self._outbox = shard.outbox
        self._subscription = ears.subscription
        self._clock = runtime.clock
        self._limits = limits
        self._telemetry = shard.telemetry
        self._caught_up = caught_up
        self._handled_ms: int | None = None
        """When the last finished round began that was audited, with no gap open: everything up to then is handled."""

    @property
    def in_doubt(self) -> Batch | None:
        """A batch whose reply is awaited or lost: to be sent again until it is answered."""
        return self._writer.in_doubt

    def tasks(self) -> dict[str, Coroutine[object, object, None]]:
        """The tasks of an epoch, by name. They run side by side, until one of them ends it."""
        tasks: dict[str, Coroutine[object, object, None]] = {"epoch": self.run(), "scan": self._scan.run()}
        if self._migration is not None:
            tasks["migration"] = self._migration.run()
        if self._fields is not None:
            tasks |= {"fields": self._fields.run(), "large-hashes": self._fields.look_closer()}
        return tasks

    async def run(self) -> NoReturn:
        """Work until the epoch ends. Raises EpochEnded, NotConnected or Refused."""
        try:
            while True:
                await self._idle()
                await self._step()
        except Fenced as error:
            raise EpochEnded(Ending.LEASE_LOST, f"lease lost: {error}") from error
        except MarkLostError as error:
            raise EpochEnded(Ending.MUTE, str(error)) from error
        except OwnKeyLostError as error:
            raise EpochEnded(Ending.OWN_KEY_LOST, str(error)) from error
        finally:
            if self._capturing is not None:
                self._capturing.close()

    async def _step(self) -> None:
        """Handle what is waiting, and touch if a touch is due."""
        if self._migration is not None:
            self._migration.look()
        found_keys, operations = self._pace.keys(), list[bytes]()
        if self._interpreter.waiting or found_keys:
            operations = self._interpreter.batch(self._budget.bytes, found_keys)
            if operations:
                await self._apply(operations)
                if found_keys:
                    self._pace.scanned()
        self.heard, self.place = self._marks.handled, self._writer.told(self._interpreter.place)
        self._scan.taken()
        self._hear_canary()
        if finished := self._marks.finished_round():
            await self._finish(finished)
        await self._adopt()
        if self._fields is not None:
            await self._fields.step()
        if self._capturing is not None:
            await self._capturing.step()
        if self._marks.round is None and self._touch_in() <= 0:
            await self._touch()
        elif not operations:
            self._check_subscription()
            await asyncio.sleep(0)

    # When.

    async def _idle(self) -> None:
        """Return when there is, or may be, something to do."""
        wake, round_ = self._attempt.ears.wake, self._marks.round
        wake.clear()
        if self._subscription.ended is not None:
            self._findings.drop()
            return
        if round_ is not None and not round_.marked and not self._attempt.ears.inbox:
            self._check_mark(round_)  # a scan alone proves nothing
        if self._stray() is not None:
            return
        if not self._interpreter.waiting:
            delay = self._touch_in() if round_ is None else self._check_mark(round_)
            delay = min(delay, self._fields_in(), self._pace.due_in(), self._capturing_in())
            if delay > 0:
                await self._clock.alarm(wake, delay)
        if (rest := self._gathers_for()) > 0:
            await self._subscription.rest(rest)

    def _gathers_for(self) -> float:
        """Seconds for which waiting hints may wait for more, so that one script records them all."""
        if not (self._interpreter.waiting and self._interpreter.patient):
            return 0
        rest = self._writer.applied_at + self._limits.gather - self._clock.monotonic()
        return min(rest, self._touch_in(), self._fields_in(), self._pace.due_in(), self._capturing_in())

    def _fields_in(self) -> float:
        """Seconds until fields of hashes are a reason to send a script."""
        due = None if self._fields is None else self._fields.due_in()
        return math.inf if due is None else due

    def _capturing_in(self) -> float:
        """Seconds until there is a value to capture."""
        return math.inf if self._capturing is None else self._capturing.due_in()

    def _check_mark(self, awaited: Round) -> float:
        """Seconds until the awaited mark has to be back. Raises EpochEnded when they are over."""
        left = awaited.touched_at + self._limits.mark - self._clock.monotonic()
        if left <= 0:
            raise EpochEnded(
                Ending.MUTE,
                f"notifications are mute: a mark did not come back within {self._limits.mark:g} s"
                f" (notify-keyspace-events needs {NEEDED_FLAGS})",
            )
        return left

    def _check_subscription(self) -> None:
        """End with the subscription, but only when everything that it received is handled."""
        if self._subscription.ended is not None and not self._interpreter.waiting:
            raise EpochEnded(self._subscription.ending, self._subscription.ended)

    def _touch_in(self) -> float:
        """Seconds until the next touch."""
        delay = self._schedule.heartbeat_in()
        if self._canary.deadline_ms is not None:
            delay = min(delay, self._schedule.until(self._canary.deadline_ms))
        if self._outbox.full:
            return delay
        if self._walk.cursor is not None or self._gap_closable():
            return 0
        due = self._schedule.due_in()
        return delay if due is None else min(delay, due)

    def _gap_closable(self) -> bool:
        """Whether a gap is open, and only a last mark is missing before it can be closed."""
        lowest, migration = self._schedule.lowest_ms, self._migration
        return (
            self._gap.open
            and self._walk.cursor is None
            and self._scan.complete
            and not self._findings
            and self._canary.proved
            and (migration is None or migration.settled)
            and (self._fields is None or self._fields.settled)
            and (lowest is None or lowest >= self._gap.start_ms)
        )

    # What.

    async def _apply(self, operations: Sequence[bytes]) -> None:
        handled, place = self._marks.handled, self._interpreter.place
        room = min(
            self._outbox.room, self._budget.bytes
        )  # where a server takes no large batch, it sends no large reply
        listed_ms = None if self._capturing is None else self._capturing.listed_ms
        mark, applied = await self._writer.apply(operations, self._gap.start_ms, handled, place, room, listed_ms)
        self._interpreter.applied(mark, applied)
        self._scan.applied(applied)
        self._gap.applied(applied)
        self._learn(applied.state)
        if self._capturing is not None:
            self._outbox.holds_values(applied.value_bytes)
            self._telemetry.values_seen(applied.values, applied.value_bytes)
            self._capturing.repaired(applied.repaired)
        if applied.wrote:
            self._outbox.added(applied.entry)
        self._telemetry.batch_applied(applied.by_notification, applied.by_sweep, applied.forgotten)

    async def _touch(self) -> None:
        """Touch what is due or, in turns with that, the next part of the whole ledger."""
        now, full = self._clock.monotonic(), self._outbox.full
        walk = self._walk.take_turn(overdue=self._schedule.overdue(), full=full)
        close = self._gap_closable()
        audited = self._audit is not None and (close or self._audit.due(now))
        limit = 0 if full else self._limits.touch_keys
        touch = Touch(
            self._writer.fence,
            self._writer.next_mark(),
            limit,
            self._budget.bytes,
            self.heard,
            walk=self._walk.cursor if walk else None,
            skip=self._schedule.skip,
            handled_ms=self._handled_ms,
            reading=self._kept_reading(),
            audit=audited,
            canary=self._canary.order(now),
            void=self._canary.void,
            place=self.place,
            gap_open=self._gap.open,
            moving=self._migration is not None and self._migration.moving(),
        )
        self._interpreter.touching(touch.mark)
        touched = await self._writer.touch(touch)
        self._pace.touched(self._clock.monotonic() - now)
        if audited and self._audit is not None:
            self._audit.asked(now)
        self._canary.touched(touch.canary, now, touched.state.now_us // 1000, void=touch.void, gone=touched.canary_gone)
        self._schedule.touched()
        self._learn(touched.state)
        self._telemetry.dead_letters_seen(touched.dead)
        self._marks.touch_left(Round.of(touch.mark, touched, Purpose(walk, audited, close), self._clock.monotonic()))
        if walk:
            self._walk.walked(touched.cursor)
        if self._migration is not None and touched.moved:
            self._migration.placement.want()

    def _stray(self) -> int | None:
        return None if self._migration is None else self._migration.strays.next()

    async def _adopt(self) -> None:
        """Adopt a part of another ledger that is on this node now."""
        if self._migration is not None:
            self._migration.placement.taken()
            if (number := self._stray()) is not None:
                left = await self._writer.adopt(number)
                self._migration.adopted(number, left)
                if left == 0 and self._fields is not None:
                    self._fields.adopt(number)
                self._outbox.added()

    async def _finish(self, finished: Round) -> None:
        """The mark of a touch is back, and everything before it is handled."""
        self._schedule.finished(finished)
        if not self._canary.marked():
            raise EpochEnded(
                Ending.MUTE,
                "notifications are mute: a key of the bridge's own expired, and Redis did not notify it"
                f" (notify-keyspace-events needs {NEEDED_FLAGS})",
            )
        if self._canary.doubtful:
            raise EpochEnded(
                Ending.MUTE,
                f"notifications are another server's: the last {self._limits.canary_voids} keys of the bridge's own"
                " were deleted, and none expired",
            )
        self._read_audit(finished)
        if finished.purpose.close and self._gap.open:
            await self._close_gap(finished)
        if not self._gap.open and (self._audit is None or finished.purpose.audit):
            self._handled_ms = finished.redis_ms
            self._caught_up(finished.redis_ms)
        self._telemetry.mark_returned(self._node)

    def _hear_canary(self) -> None:
        deadline_ms = self._canary.take_heard()
        if deadline_ms is not None:
            now_ms = self._attempt.shard.redis_clock.now_ms()
            self._telemetry.canary_heard(max(now_ms - deadline_ms, 0) / 1000)

    def _read_audit(self, finished: Round) -> None:
        if self._audit is None or not finished.purpose.audit:
            return
        missed = self._audit.read(Reading.of(finished.counters, finished.heard, finished.void))
        if missed and not self._gap.open:
            raise Missed(missed)

    async def _close_gap(self, finished: Round) -> None:
        """Everything is reconciled. The step that closes the gap puts its record into the outbox."""
        gap, audit = self._gap, self._audit
        missed = audit.in_gap() if audit is not None else None
        # It closed when the touch was made, not now. If this has to be sent again, the stream may be lost by then.
        opened_ms = min(gap.opened_ms, finished.redis_ms)  # Redis's clock may have been set back since
        record = ClosedGap(self._node, opened_ms, finished.redis_ms, gap.cause, missed, self._kept_reading())
        await self._apply(gap_closed(record))
        gap.close()
        self._walk.gap_closed()
        if audit is not None:
            audit.closed()
        self._telemetry.gap_closed(gap.recovered, gap.ambiguous, missed)

    def _kept_reading(self) -> str:
        return "" if self._audit is None else str(self._audit.last or "")

    def _learn(self, state: State) -> None:
        self._schedule.learn(state)
        self._gap.clock_is_at(state.now_us // 1000)
        self._outbox.holds(state.depth)
        self._telemetry.ledger_seen(state.size, state.depth)
