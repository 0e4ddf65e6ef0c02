"""An epoch whose steps the test takes: what Redis notifies is held until the test lets it be heard."""

import asyncio
from collections.abc import Sequence
from typing import Self

from bridge.contracts import Entry, Settlement
from bridge.expiration import Expiration, Identity
from bridge.limits import EpochLimits, LedgerLimits
from bridge.limits.scaled import MIB
from bridge.redis.ledger.entries import read_entry
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Applied, Batch, Claim, Lease, Touch, Touched
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.inbox import Hint, Inbox
from bridge.redis.protocol.interpreter import Interpreter, Scope
from bridge.redis.protocol.marks import Marks, Purpose, Round
from bridge.redis.protocol.migrated_keys import MigratedKeys
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.operations import ClosedGap, gap_closed
from bridge.redis.protocol.patterns import matcher
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import Subscription, subscribe
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from tests.support.harness.user import NAMES
from tests.support.servers import PATIENCE, RedisServer

LIMIT_SECONDS = PATIENCE


class Hand:
    """The steps of one epoch after the other. Nothing happens that the test does not ask for.

    `async with Hand(server) as hand:` begins with an epoch; `begin()` drops what was not handled.
    """

    names = NAMES
    """Of its ledger."""

    def __init__(
        self,
        server: RedisServer,
        *,
        keys: Sequence[str] = ("*",),
        instance: str = "hand",
        endpoint: Endpoint | None = None,
    ) -> None:
        """`endpoint`: the server, where it is not what a URL names."""
        self._settings = settings = Settings(redis_url=server.url, keys=list(keys))
        self._endpoint = endpoint or Endpoint.of(settings)
        self._client = self._endpoint.client()
        self._commands = Commands(self._endpoint)
        self._matches = matcher(settings.keys)
        self._instance = instance
        self._sync = b"hand:" + instance.encode()
        self._identity = Identity(settings.source, 0)
        self.ledger = Ledger(self._commands, self.names, LedgerLimits())
        self._outbox = Outbox(self.ledger, self._identity, settings.outbox_limit, LedgerLimits(), Telemetry().shard())
        self._wake = asyncio.Event()
        self._held: Inbox
        """What the test has not let be heard."""
        self._subscription: Subscription | None = None
        self._syncs = 0
        self.lease: Lease
        self.inbox: Inbox
        self.marks: Marks
        self.interpreter: Interpreter
        self.gap: Gap

    async def begin(self) -> None:
        """A new epoch: a new fence, a new subscription, an open gap."""
        self.end()
        lease = await self.ledger.acquire(Claim(self._instance))
        assert isinstance(lease, Lease)
        self.lease, self._seq, self._scripts = lease, 0, 0
        kinds = channels(0)
        self._held, self.inbox = Inbox(self._endpoint.limits), Inbox(self._endpoint.limits)
        self._subscription = await subscribe(self._endpoint, [*kinds, self._sync], self._held, self._wake.set)
        start_ms = await self.ledger.now_ms()
        opened_ms = lease.handled_ms or start_ms
        recovered, ambiguous = await self._client.hmget(self.names.lease, "recovered", "ambiguous")
        self.gap = Gap("a test", opened_ms, start_ms, recovered=int(recovered or 0), ambiguous=int(ambiguous or 0))
        self.marks = Marks()
        self._scope = Scope(self.names, kinds, self._matches, EpochLimits())
        self.interpreter = Interpreter(self._scope, self.inbox, self.marks, migrated=self._migrated_keys())

    def end(self) -> None:
        """The subscription is lost, and with it every hint that was not handled."""
        if self._subscription is not None:
            self._subscription.end("the test has ended it")

    async def hear(self) -> None:
        """Let everything be heard that Redis has notified so far."""
        self._syncs += 1
        token = (self._sync, b"%d" % self._syncs)
        await self._client.publish(*token)
        await asyncio.wait_for(self._arrived(token), LIMIT_SECONDS)
        while (hint := self._held.take()) != token:
            self.inbox.put([hint])

    def batch(self) -> Batch:
        """What was heard, as the next script to be sent."""
        self._seq += 1
        operations = self.interpreter.batch()
        return self._batch_of(operations)

    async def send(self, batch: Batch) -> Applied | None:
        """Send one script, and learn from its reply. As the bridge does, send none that would do nothing."""
        if not batch.operations:
            return None
        applied = await self.ledger.apply(batch)
        if applied is not None:
            self.interpreter.applied(batch.mark, applied)
            self.gap.applied(applied)
        return applied

    async def record(self, *keys: bytes) -> None:
        """Handle these keys alone, as if a scan had found them; hear nothing."""
        self.interpreter.findings.add(keys)
        while self.interpreter.findings:
            await self.send(self.batch())

    async def scan(self, match: bytes = b"*") -> int:
        """Go through the keyspace, together with what was heard; how many keys were found. Hear nothing."""
        self.interpreter.findings.begin(match)
        found = 0
        while self.interpreter.findings.scanning:
            applied = await self.send(self.batch())
            assert applied is not None
            found += applied.found
        return found

    def part(self, count: int) -> Batch:
        """The first `count` hints that were heard, as the next script to be sent: as if a batch had ended there."""
        heard = [self.inbox.take() for _ in range(len(self.inbox))]
        self.inbox.put(heard[:count])
        try:
            return self.batch()
        finally:
            self.inbox.put(heard[count:])

    async def step(self, count: int = 1) -> None:
        """Handle the first hints that were heard, alone."""
        await self.send(self.part(count))

    async def handle(self) -> None:
        """Hear and handle, until there is nothing more."""
        while await self._handle_heard():
            self.marks.finished_round()

    async def touch(self, mode: str = "due", *, moving: bool = False) -> Touched:
        """Touch what is due, or walk the ledger (which must be small). `moving`: slots of a cluster are."""
        mark = self._mark()
        walk = b"0" if mode == "walk" else None
        self.interpreter.touching(mark)
        touched = await self.ledger.touch(
            Touch(self.lease.fence, mark, 500, MIB, self.marks.handled, walk, moving=moving)
        )
        self.marks.touch_left(Round.of(mark, touched, Purpose(), 0.0))
        return touched

    async def close_gap(self, missed: int | None = None) -> None:
        """Put the record of the open gap into the outbox, and make an end of it."""
        gap = self.gap
        self._seq += 1
        operations = gap_closed(ClosedGap("hand", gap.opened_ms, gap.start_ms, gap.cause, missed))
        await self.send(self._batch_of(operations))
        gap.close()

    async def sweep(self, mode: str = "due") -> None:
        """Touch, and handle what comes of it."""
        await self.touch(mode)
        await self.handle()

    async def claimed(self, key: bytes | None = None) -> list[Expiration]:
        """What is in the outbox (of one key), in order."""
        claims = [event for entry in await self.entries() for event in entry.events if isinstance(event, Expiration)]
        return [claim for claim in claims if key is None or claim.key == key]

    async def entries(self, after: bytes = b"0-0") -> list[Entry]:
        """What is in the outbox behind an entry."""
        found, _ = await self.ledger.entries(after, 100_000)
        return [read_entry(self._identity, *one, self.names.shard) for one in found]

    async def settle(self, entries: Sequence[Entry]) -> int:
        """Take these out of the outbox, as if the broker had acked them; how many expirations wait there then."""
        await self._outbox.settle([Settlement.of(entry) for entry in entries])
        return self._outbox.depth

    def id_of(self, key: bytes, deadline_ms: int) -> str:
        """The id of an expiration with a known deadline."""
        return self._identity.of_deadline(key, deadline_ms)

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        self._commands.close()
        await self._client.aclose()

    async def _handle_heard(self) -> bool:
        await self.hear()
        heard = self.interpreter.waiting
        while self.interpreter.waiting:
            await self.send(self.batch())
        return heard

    async def _arrived(self, token: Hint) -> None:
        while token not in self._held:
            self._wake.clear()
            await self._wake.wait()

    def _batch_of(self, operations: Sequence[bytes]) -> Batch:
        return Batch(self.lease.fence, self._seq, self.gap.start_ms, self.marks.handled, self._mark(), operations)

    def _migrated_keys(self) -> MigratedKeys | None:
        """What becomes of keys that come from other nodes, in a cluster."""
        return None

    def _mark(self) -> bytes:
        self._scripts += 1
        return self.names.mark(self.lease.fence, self._scripts)
