"""A whole bridge in the test's event loop, with a broker that keeps what it is sent.

`kill()` leaves everything as SIGKILL would. A proxy in front of it holds, delays and cuts what the test wants.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from redis.asyncio import Redis

from bridge.broker_state import BrokerState
from bridge.clock import Clock, SystemClock
from bridge.cloudevents import Encoder
from bridge.contracts import Batch, Message, Order, Receipts
from bridge.delivery.context import Context
from bridge.delivery.loop import Delivery
from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.limits import Limits
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.source.membership import Members
from bridge.redis.source.shard import RedisSource
from bridge.settings import Settings
from bridge.tasks import end
from bridge.telemetry.common import Common
from bridge.telemetry.events import Telemetry
from bridge.telemetry.shard import ShardTelemetry
from tests.support.harness.hand import LIMIT_SECONDS
from tests.support.harness.published import SENTINEL, Event, key_of
from tests.support.harness.user import NAMES, expired
from tests.support.limits import QUICK
from tests.support.redis.commands import redis_ms, set_for
from tests.support.servers import wait_until

SOON = replace(
    QUICK,
    epoch=replace(QUICK.epoch, heartbeat=0.05),
    source=replace(QUICK.source, backoff_first=0.02, backoff_most=0.02, failover_pause=0.02),
)
"""For tests that are not about how long the bridge takes to try again, or to touch what was not notified to it."""


class Recorder(ShardTelemetry):
    """Remembers what the bridge says of its gaps."""

    def __init__(self, of: Telemetry) -> None:
        """`of`: that of the process."""
        super().__init__(0, 1, of.metrics, of.health, Common(of.history.clock))
        self.metrics, self.health = of.metrics, of.health
        self.causes: list[str] = []
        self.endings: list[str] = []
        self.closed = 0
        self.recovered = 0
        self.ambiguous = 0
        self.canaries = 0
        self.repaired = 0

    def gap_opened(self, cause: str, opened_ms: int, until_ms: int) -> None:
        """See `ShardTelemetry`."""
        super().gap_opened(cause, opened_ms, until_ms)
        self.causes.append(cause)

    def gap_closed(self, recovered: int, ambiguous: int, missed: int | None) -> None:
        """See `ShardTelemetry`."""
        super().gap_closed(recovered, ambiguous, missed)
        self.closed += 1
        self.recovered += recovered
        self.ambiguous += ambiguous

    def ledger_repaired(self, count: int) -> None:
        """See `ShardTelemetry`."""
        super().ledger_repaired(count)
        self.repaired += count

    def canary_heard(self, lag: float) -> None:
        """See `ShardTelemetry`."""
        super().canary_heard(lag)
        self.canaries += 1

    def epoch_ended(self, node: str, ending: Ending, reason: str) -> None:
        """See `ShardTelemetry`."""
        super().epoch_ended(node, ending, reason)
        self.endings.append(reason)


class Broker:
    """A sink, and its only session, that keeps what it is sent. While `up` is cleared, it acks nothing.

    Once `gone` is set, there is no session, and no way to it.
    """

    order = Order.KEY

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.gone = asyncio.Event()
        self.events: list[Event] = []
        """Of expirations."""
        self.gaps: list[Event] = []
        """Of gaps."""

    async def connect(self) -> Self:
        """See `Sink`."""
        if self.gone.is_set():
            raise NotConnected("the broker is gone")
        return self

    def channel(self, message: Message) -> str:
        """See `Sink`."""
        return "broker"

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session`."""
        await self.up.wait()
        self.events += [json.loads(message.body) for message in batch.messages if not message.gap]
        self.gaps += [json.loads(message.body) for message in batch.messages if message.gap]
        receipts.acked(range(len(batch.messages)))

    async def ended(self) -> str:
        """See `Session`."""
        await self.gone.wait()
        return "the broker is gone"

    async def close(self) -> None:
        """See `Session`."""


class Inside:
    """A bridge: source and delivery as tasks of the test. Its settings are arguments, by the names of the fields."""

    def __init__(
        self,
        port: int,
        instance: str = "inside",
        *,
        limits: Limits | None = None,
        clock: Clock | None = None,
        **settings: object,
    ) -> None:
        chosen = Settings.model_validate({"redis_url": f"redis://127.0.0.1:{port}/0", "sink": "stdout", **settings})
        clock, process = clock or SystemClock(), Telemetry()
        self.telemetry = Recorder(process)
        self.broker = Broker()
        limits = limits or QUICK
        self._outboxes = Outboxes(clock, limits.ledger)
        state = BrokerState()
        runtime = Runtime(chosen, instance, clock, limits, state)
        members = Members(runtime, lambda: self._source.ledger.roster, 1)
        self._source = RedisSource(runtime, self.telemetry, members, self._outboxes.wake)
        self._outboxes.add(self._source.outbox)
        encoder, redis_ms = Encoder(chosen.source, 0, chosen.content_mode), self._source.redis_ms
        context = Context(clock, limits.delivery, process, redis_ms, state)
        self._delivery = Delivery(self._outboxes, self.broker, encoder, context)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def unready(self) -> dict[str, str]:
        """Why it is not ready."""
        return self.telemetry.health.reasons

    @property
    def published(self) -> list[Event]:
        """What the broker has, without what came for sentinels."""
        return [event for event in self.broker.events if key_of(event)[: len(SENTINEL)] != SENTINEL]

    async def reconciled(self, gaps: int = 1) -> None:
        """Return when it is ready, and has closed so many gaps."""

        def is_reconciled() -> bool:
            self._check()
            return self.telemetry.closed >= gaps and not self.unready

        await wait_until(is_reconciled, lambda: f"gap {gaps} to be closed; {self.telemetry.endings} {self.unready}")
        if self.broker.up.is_set():
            await wait_until(self._records_are_settled, "gap records to be settled")

    async def _records_are_settled(self) -> bool:
        """Else the next bridge would publish them again."""
        try:
            entries, _ = await self._source.ledger.entries(b"0-0", 100)
            return not any(b"gap" in fields for _, fields in entries)
        except (NotConnected, Refused):
            return True  # the test has cut it off

    async def ended(self, epochs: int = 1) -> None:
        """Return when so many epochs have ended."""
        await wait_until(lambda: len(self.telemetry.endings) >= epochs, f"the end of {epochs} epoch(s)")

    async def told(self, count: int) -> None:
        """Return when it has published so many expirations."""

        def are_told() -> bool:
            self._check()
            return len(self.published) >= count

        await wait_until(are_told, lambda: f"{count} messages, there are {self.published}")

    async def records(self, count: int) -> list[dict[str, Any]]:
        """The data of the gap records that it has published, once there are so many; of copies, the first one."""

        def found() -> list[Event]:
            return list({event["id"]: event for event in reversed(self.broker.gaps)}.values())[::-1]

        def are_there() -> bool:
            self._check()
            return len(found()) >= count

        await wait_until(are_there, lambda: f"{count} gap records, there are {self.broker.gaps}")
        return [event["data"] for event in found()]

    async def quiet(self, user: Redis) -> None:
        """Return when everything is published that was notified before the call, and no recorded deadline is past."""
        await self._past_here(user)

        async def nothing_is_due() -> bool:
            return await user.zcount(NAMES.deadlines, "-inf", f"({await redis_ms(user)}") == 0

        await wait_until(nothing_is_due, "the sweep")
        await self._past_here(user)

    async def stop(self) -> None:
        """As on SIGTERM: handle, deliver, release the lease."""
        source, delivery = self._tasks
        self._source.stop()
        async with asyncio.timeout(LIMIT_SECONDS):
            await source
            self._outboxes.drain()
            await delivery
            await self._source.close()

    async def kill(self) -> None:
        """As SIGKILL: nothing is handled any more, nothing is released."""
        await end(self._tasks)
        with suppress(OSError, NotConnected):
            self._source._listen_no_more()
            await self._source._drop_relief()
            await self._source._primary.close()
        self._check()

    def start(self) -> None:
        """Start it; `async with` does."""
        for name, work in {"source": self._source.run(), "delivery": self._delivery.run()}.items():
            self._tasks.append(asyncio.create_task(work, name=name))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _past_here(self, user: Redis) -> None:
        key = b"%b%d" % (SENTINEL, await user.incr("sentinels"))
        await set_for(user, key, 1)
        await expired(user, key)

        def is_told() -> bool:
            self._check()
            return any(key_of(event) == key for event in reversed(self.broker.events))

        await wait_until(is_told, "a sentinel")
