"""The ledger protocol on a real server, step by step: the user, the network, and two processes, one of them stale."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from redis.asyncio import Redis

from bridge.redis.protocol.calls import Batch
from bridge.redis.protocol.interpreter import OwnKeyLostError
from bridge.redis.wire.errors import Fenced
from tests.support.harness.checked_server import KEYS, CheckedServer, expirations
from tests.support.harness.chronicle import ENDS, Fate, Life
from tests.support.harness.hand import Hand
from tests.support.harness.user import NAMES, lapse
from tests.support.redis.commands import redis_ms
from tests.support.redis.operations import EXPIRED, EXPIRED_AHEAD, alike, operations_in
from tests.support.servers import RedisServer


class Play(CheckedServer):
    """One example: the server's user, the bridge that holds the lease, and the one that held it before."""

    def __init__(self, server: RedisServer, user: Redis) -> None:
        super().__init__(server, user)
        self.stale: Hand | None = None
        self._stale_hears = False
        self.late: list[tuple[Hand, Batch]] = []
        """Batches of former epochs, which Redis has not read yet."""
        self.doubt: tuple[Batch, Sequence[Life], bool] | None = None
        """A batch whose reply was lost, its hints, and whether it was applied: the connection is cut."""
        self._held: list[Life] = []
        """Heard, and neither handled nor lost: see `Hints`."""
        self._hands = [self.hand]
        self._walked = self._scanned = self._closing = False

    async def open(self) -> None:
        """Begin with an empty server, and an epoch."""
        await super().open()
        await self._begin()
        await self.look()

    async def close(self) -> None:
        """End all epochs."""
        await super().close()
        for hand in self._hands:
            await hand.__aexit__()

    # The bridge.

    def connected(self) -> bool:
        return self.doubt is None

    async def handle(self, count: int) -> None:
        batch, handled = self._part(count)
        await self.hand.send(batch)
        await self._handled(handled)

    async def handle_all(self) -> None:
        await self.hand.hear()
        while self.hand.interpreter.waiting:
            await self.handle(500)
            await self.hand.hear()

    async def touch(self, mode: str) -> None:
        gap, findings = self.hand.gap, self.hand.interpreter.findings
        if self.hand.marks.round is not None:
            return
        self._closing = (
            gap.open
            and self._walked
            and self._scanned
            and not findings
            and min(self.entries.values(), default=gap.start_ms) >= gap.start_ms
        )
        self._walked |= mode == "walk"
        await self.hand.touch(mode)
        await self.look()

    async def scan(self, count: int = 0, *, listed: bool = False) -> None:
        """By the script itself, which handles so many hints, too; or a list of keys."""
        if listed:
            self.hand.interpreter.findings.add(KEYS)
        else:
            self.hand.interpreter.findings.begin(b"*")
        await self.handle(count)
        assert not self.hand.interpreter.findings.scanning, "so few keys are one part"
        self._scanned = True
        for key in KEYS:
            self.chronicle.scanned(key, self.entries)

    async def reconcile(self) -> None:
        """All that is needed to close the gap, and to sweep what is due."""
        for _ in range(20):
            await self.handle_all()
            if not self._scanned:
                await self.scan()
            if not (await self._due() or self.hand.gap.open):
                return
            await self.touch("due" if self._walked else "walk")
        raise AssertionError("the gap does not come to its end")

    # What goes wrong.

    async def lose_reply(self, count: int, *, applied: bool) -> None:
        """The connection is cut after a batch was sent."""
        batch, handled = self._part(count)
        self.hand.end()
        self._lose()
        self.chronicle.subscribed = False
        if batch.operations and applied:
            assert await self.hand.ledger.apply(batch) is not None
            await self.look(handled)
        self.doubt = (batch, handled, applied)

    async def begin_again(self) -> None:
        """The next epoch of the same process, which first asks again what it has no answer to."""
        assert self.doubt is not None
        batch, handled, applied = self.doubt
        if batch.operations:
            answer = await self.hand.ledger.apply(batch)
            assert (answer is None) == applied, "a batch is applied once"
        self.doubt = None
        await self.look(() if applied else handled)
        await self._begin()

    async def crash(self, count: int) -> None:
        """Whatever was not handled is lost, also what a batch would have handled that is on its way."""
        self._give_up(count)
        await self._begin()

    async def take_over(self, count: int) -> None:
        """Another process takes the lease; this one does not know."""
        self._stale_hears = self.connected()
        self._give_up(count)
        await lapse(self.user)
        self.stale, self.hand = self.hand, Hand(self.server, instance=str(len(self._hands)))
        self._hands.append(self.hand)
        await self._begin()

    async def arrive_late(self) -> None:
        """Redis reads what a former epoch had sent."""
        for hand, batch in self.late:
            with pytest.raises(Fenced):
                await hand.ledger.apply(batch)
        self.late.clear()
        await self.look()

    async def act_stale(self) -> None:
        """The process that lost the lease goes on with what it hears."""
        assert self.stale is not None
        with pytest.raises(Fenced):
            await self.stale.touch()
        if self._stale_hears:
            await self.stale.hear()
        try:
            batch = self.stale.batch()
        except OwnKeyLostError:
            batch = None  # the ledger became empty: it knows that way
        if batch is not None:
            with pytest.raises(Fenced):
                await self.stale.ledger.apply(batch)
        self.stale.end()
        self.stale = None
        await self.look()

    # The broker.

    async def settle(self, count: int) -> None:
        entries, self.unsettled = self.unsettled[:count], self.unsettled[count:]
        for _ in range(2):  # its reply was lost
            assert await self.hand.settle(entries) == expirations(self.unsettled)
        await self.look()

    # The end.

    async def finish(self) -> None:
        """Nothing more happens; all that the bridge has to do is done."""
        if self.doubt is not None:
            await self.begin_again()
        await self.arrive_late()
        await self.wait()
        await self.reconcile()
        self.chronicle.check_quiet(self.entries)

    async def _begin(self) -> None:
        await self.hand.begin()
        self.chronicle.subscribed = True
        self._walked = self._scanned = self._closing = False

    def _give_up(self, count: int) -> None:
        """All hints are lost; so are those of the batch that is on its way, and will be refused."""
        batch, handled, applied = self.doubt or (*self._part(count), False)
        if not applied:
            self.chronicle.stream.extend(handled)
            self.late.append((self.hand, batch))
        self.doubt = None
        self._lose()

    def _part(self, count: int) -> tuple[Batch, Sequence[Life]]:
        """A batch of so many hints, and whose ends it handles."""
        taken = list(self.hand.inbox)[:count]
        batch = self.hand.part(count)
        ended, self._held = self._held, []
        for channel, key in taken:
            if channel.decode().partition(":")[2] in ENDS and not key.startswith(NAMES.own_prefix):
                life = self.chronicle.stream.popleft()
                assert life.key == key
                ended.append(life)
        told, handled = Counter(_told(batch.operations)), []
        for life in ended:
            if life.fate is Fate.EXPIRED and not told[life.key]:
                self._held.append(life)  # its key is ahead: the next mark decides what it is
            else:
                told[life.key] -= life.fate is Fate.EXPIRED
                handled.append(life)
        return batch, handled

    def _lose(self) -> None:
        """The epoch ends: what was heard, and not handled, is lost."""
        self.chronicle.stream.extendleft(reversed(self._held))
        self._held = []
        self.chronicle.lose()

    async def _handled(self, lives: Sequence[Life]) -> None:
        await self.look(lives)
        if self.hand.marks.finished_round() is not None and self._closing:
            await self.hand.close_gap()
            await self.look()
            self.chronicle.gap_closed()
            self._closing = False

    async def _due(self) -> bool:
        now = await redis_ms(self.user)
        return any(deadline < now for deadline in self.entries.values())


def _told(operations: Sequence[bytes]) -> Iterator[bytes]:
    """The key of each notification of an expiration that the batch handles."""
    for operation in operations_in(operations):
        if alike(operation, EXPIRED, EXPIRED_AHEAD):
            yield operation[1]
