"""How keys, and shards, are divided; and that no shard's outbox waits for another's."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.broker_state import BrokerState
from bridge.clock import Clock, SystemClock
from bridge.contracts import Entry, Settlement
from bridge.errors import NotConnected
from bridge.expiration import Expiration, Identity, Via
from bridge.limits import LedgerLimits, Limits, SourceLimits
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.ledger.roster import Roster
from bridge.redis.protocol.patterns import matcher
from bridge.redis.source.membership import Members
from bridge.settings import Settings
from tests.support.hand_clock import HandClock
from tests.support.servers import wait_until


@given(st.binary(), st.integers(2, 256))
def test_a_key_belongs_to_one_shard(key: bytes, shards: int) -> None:
    owners = [shard for shard in range(shards) if (owns := matcher(["*"], shard, shards)) and owns(key)]
    assert len(owners) == 1


def test_a_shard_has_none_but_the_keys_that_are_bridged() -> None:
    keys = [b"%b:%d" % (prefix, number) for prefix in (b"share", b"other") for number in range(100)]
    owned = [{key for key in keys if (owns := matcher(["share:*"], shard, 4)) and owns(key)} for shard in range(4)]
    assert set().union(*owned) == {key for key in keys if key.startswith(b"share:")}
    assert all(10 < len(found) < 40 for found in owned), "spread evenly"


class FakeRoster:
    """Says how many bridges there are, and of which place this one is."""

    def __init__(self) -> None:
        self.said: tuple[int, int] | None = (0, 1)
        self.lives: list[int] = []

    async def sign_of_life(self, _: str, life_ms: int) -> tuple[int, int]:
        self.lives.append(life_ms)
        if self.said is None:
            raise NotConnected("gone")
        return self.said


LIMITS = LedgerLimits()
BUSY = Limits(source=SourceLimits(sign_of_life=0.001, unable=0.05))
"""Signs of life without pauses."""
SLOW = Limits().scaled(1000)


def members(
    ledger: FakeRoster,
    shards: int,
    limits: Limits = BUSY,
    clock: Clock | None = None,
    broker: BrokerState | None = None,
) -> Members:
    """They count: they could go on with each shard."""
    found = unprepared(ledger, shards, limits, clock, broker)
    for shard in range(shards):
        found.prepared(shard)
    return found


def unprepared(
    ledger: FakeRoster,
    shards: int,
    limits: Limits = BUSY,
    clock: Clock | None = None,
    broker: BrokerState | None = None,
) -> Members:
    runtime = Runtime(Settings(), "me", clock or SystemClock(), limits, broker or BrokerState())
    return Members(runtime, lambda: cast("Roster", ledger), shards)


def has_lived(ledger: FakeRoster, shards: int) -> bool:
    return bool(ledger.lives) or shards == 1


@pytest.mark.parametrize(("shards", "bridges"), [(1, 3), (4, 1), (4, 2), (4, 3), (5, 3), (3, 4), (7, 7)])
async def test_shares_are_even_and_make_up_all_shards(shards: int, bridges: int) -> None:
    shares = []
    for place in range(bridges):
        ledger = FakeRoster()
        ledger.said = place, bridges
        here = members(ledger, shards)
        running = asyncio.create_task(here.run())
        await wait_until(partial(has_lived, ledger, shards))
        await asyncio.sleep(0)
        shares.append(here.share)
        here.leave()
        await running
        assert ledger.lives[-1:] == ([0] if shards > 1 else []), "the last sign of life says that it leaves"
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == shards or shards == 1  # of a single one, whoever comes first has the lease


async def test_a_bridge_that_cannot_work_does_not_count_for_a_while() -> None:
    ledger, clock = FakeRoster(), HandClock()
    here = members(ledger, 4, clock=clock)
    here.unable()
    running = asyncio.create_task(here.run())
    await wait_until(lambda: ledger.lives[:2] == [0, 0], "no signs of life")
    assert here.share == 0
    clock.now += BUSY.source.unable
    await wait_until(lambda: here.share == 4, "a share, as it tries again")
    here.leave()
    await running


async def test_a_bridge_that_has_lost_its_broker_does_not_count_until_that_is_back() -> None:
    ledger, clock, broker = FakeRoster(), HandClock(), BrokerState()
    ledger.said = 0, 1  # there is another one
    here = members(ledger, 4, clock=clock, broker=broker)
    running = asyncio.create_task(here.run())
    await wait_until(lambda: here.share == 4, "its share: it was not the broker that it could not work without")
    here.unable(broker=True)

    async def looks() -> None:
        """It counts, or not, as it is now."""
        seen = len(ledger.lives)
        await wait_until(lambda: len(ledger.lives) > seen + 2, "looks at the others")

    await looks()
    broker.up = True  # for a moment: no reason to move shards at once
    await looks()
    broker.up = False
    clock.now += BUSY.source.unable
    await looks()
    assert ledger.lives[-1] == 0
    assert (here.works, here.counts) == (True, False), "another bridge delivers"

    ledger.said = 0, 0
    await wait_until(lambda: here.share == 4, "all of them, where it is alone")
    assert ledger.lives[-1] == 0

    ledger.said = 1, 2
    broker.up = True
    await wait_until(lambda: here.share == 2, "its share, now that the broker is back")
    assert here.counts
    broker.up = False
    await looks()
    assert here.counts, "it keeps its share: it may be that no other bridge reaches the broker"
    here.leave()
    await running


async def test_a_bridge_that_has_just_started_counts_once_it_could_go_on_with_all_shards() -> None:
    ledger = FakeRoster()
    ledger.said = 1, 1  # there is another one
    here = unprepared(ledger, 4)
    running = asyncio.create_task(here.run())
    for shard in range(3):
        here.prepared(shard)
    await wait_until(lambda: len(ledger.lives) > 2, "looks at the others")
    assert set(ledger.lives) == {0}
    assert here.share == 0
    ledger.said = 1, 2
    here.prepared(3)
    await wait_until(lambda: here.share == 2, "its share")
    here.leave()
    await running


async def test_a_bridge_that_nobody_else_shares_with_has_all_shards_at_once() -> None:
    ledger = FakeRoster()
    ledger.said = 0, 0
    here = unprepared(ledger, 4, SLOW)
    running = asyncio.create_task(here.run())
    await wait_until(lambda: here.share == 4, "all of them")
    here.leave()
    await running


async def test_a_share_follows_the_number_of_shards_at_once() -> None:
    here = members(FakeRoster(), 4, SLOW)
    running = asyncio.create_task(here.run())
    await wait_until(lambda: here.share == 4, "the first share")
    here.resize(5)
    await wait_until(lambda: here.share == 5, "a larger share")
    here.leave()
    await running


def test_a_shard_that_is_asked_for_counts_as_held_until_it_is_refused() -> None:
    here = members(FakeRoster(), 4)
    here.share = 1
    assert here.take(2)
    assert not here.take(3)
    here.lost(2)
    assert here.take(3)


def test_who_has_too_many_gives_the_last_ones_up_and_keeps_what_it_has_else() -> None:
    here = members(FakeRoster(), 4)
    here.share = 4
    for shard in range(4):
        assert here.take(shard)
    here.share = 2
    assert [here.surplus(shard) for shard in range(4)] == [False, False, True, True]
    here.lost(2)
    assert here.surplus(3)
    assert here.take(3), "an epoch of what it holds may begin anew"
    assert not here.take(2)
    here.lost(3)
    assert not here.surplus(1)


class FakeOutbox:
    """Has what it is given, and counts how often it was looked at."""

    def __init__(self, shard: int, *entries: Entry) -> None:
        self.shard = shard
        self.depth = len(entries)
        self.entries = list(entries)
        self.settled: list[Settlement] = []
        self.broken = False
        self.frozen = False
        self.ours = True

    @property
    def news(self) -> bool:
        return bool(self.entries)

    async def next(self, limit: int, *, anyway: bool = False) -> Sequence[Entry]:
        if self.frozen:
            await asyncio.Event().wait()
        if self.broken:
            raise NotConnected("gone")
        found, self.entries = self.entries[:limit], self.entries[limit:]
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        if self.frozen:
            await asyncio.Event().wait()
        if self.broken:
            raise NotConnected("gone")
        self.settled += settlements


def entry(shard: int, number: int) -> Entry:
    key = b"k%d" % number
    event = Expiration(Identity("/redis", 0).of_deadline(key, 1), key, 1, 2, Via.SWEEP)
    return Entry(b"7-%d" % number, [event], shard)


def outboxes(*fakes: FakeOutbox) -> Outboxes:
    found = Outboxes(SystemClock(), LIMITS)
    for fake in fakes:
        found.add(cast("Outbox", fake))
    return found


async def test_outboxes_are_read_in_turn_and_settled_each_by_its_own_entries() -> None:
    first = FakeOutbox(0, *(entry(0, number) for number in range(4)))
    second = FakeOutbox(1, entry(1, 0))
    all_ = outboxes(first, second)
    all_.drain()
    read: list[Entry] = []
    while found := await all_.read(1):
        read += found
    assert [(one.shard, one.id) for one in read[:3]] == [(0, b"7-0"), (1, b"7-0"), (0, b"7-1")]
    assert len(read) == all_.depth == 5
    await all_.settle([Settlement.of(one) for one in read])
    assert [len(first.settled), len(second.settled)] == [4, 1]


async def test_an_outbox_that_cannot_be_read_does_not_stop_the_others_and_is_asked_again() -> None:
    first, second = FakeOutbox(0, entry(0, 0)), FakeOutbox(1, entry(1, 0))
    first.broken = True
    all_ = outboxes(first, second)
    assert [one.shard for one in await all_.read(1)] == [1]
    all_.drain()
    reading = asyncio.create_task(all_.read(1))
    await asyncio.sleep(0)
    first.broken = False
    assert [one.shard for one in await reading] == [0]
    assert await all_.read(1) == ()


async def test_an_outbox_whose_server_does_not_answer_holds_up_no_other() -> None:
    first, second = FakeOutbox(0, entry(0, 0)), FakeOutbox(1, entry(1, 0), entry(1, 1))
    first.frozen = True
    all_ = outboxes(first, second)
    for number in range(2):
        assert [(one.shard, one.id) for one in await all_.read(1)] == [(1, b"7-%d" % number)]
    await all_.close()


async def test_what_one_server_of_several_does_not_take_is_settled_before_it_is_read_again() -> None:
    first, second = FakeOutbox(0), FakeOutbox(1)
    all_ = outboxes(first, second)
    first.broken = True
    await all_.settle([Settlement.of(entry(0, 0)), Settlement.of(entry(1, 0))])
    assert [len(first.settled), len(second.settled)] == [0, 1]
    first.broken = False
    first.entries = [entry(0, 1)]
    assert [one.id for one in await all_.read(1)] == [b"7-1"]
    assert [one.id for one in first.settled] == [b"7-0"]


async def test_of_a_server_that_takes_nothing_for_long_the_last_settlements_are_kept() -> None:
    first, second = FakeOutbox(0), FakeOutbox(1)
    all_ = outboxes(first, second)
    first.broken = True
    settlements = [Settlement.of(entry(0, number)) for number in range(LIMITS.owed_entries + 2)]
    await all_.settle(settlements[:-1])
    await all_.settle([settlements[-1], Settlement.of(entry(1, 0))])
    assert len(second.settled) == 1
    first.broken = False
    first.entries = [entry(0, 0)]
    await all_.read(1)
    assert [one.id for one in first.settled] == [one.id for one in settlements[2:]]


async def test_a_shard_that_is_no_more_is_asked_and_settled_no_more() -> None:
    first, second = FakeOutbox(0, entry(0, 0)), FakeOutbox(1)
    all_ = outboxes(first, second)
    (read,) = await all_.read(1)
    first.frozen, first.entries = True, [entry(0, 1)]
    reading = asyncio.create_task(all_.read(1))
    await asyncio.sleep(0)
    all_.remove(cast("Outbox", first))
    await all_.settle([Settlement.of(read)])
    assert first.settled == []
    second.entries = [entry(1, 0)]
    all_.wake()
    assert [one.shard for one in await reading] == [1]


async def test_settling_goes_on_though_a_shard_goes_meanwhile() -> None:
    first, second = FakeOutbox(0), FakeOutbox(1)
    all_ = outboxes(first, second)
    first.frozen = True
    settling = asyncio.create_task(all_.settle([Settlement.of(entry(0, 0)), Settlement.of(entry(1, 0))]))
    await wait_until(lambda: second.settled, "the other shard")
    all_.remove(cast("Outbox", first))
    await settling


async def test_an_outbox_that_could_not_be_read_once_drains_when_it_is_the_only_one_left() -> None:
    first, second = FakeOutbox(0, entry(0, 0)), FakeOutbox(1, entry(1, 0))
    first.broken = True
    all_ = outboxes(first, second)
    assert [one.shard for one in await all_.read(1)] == [1]
    all_.remove(cast("Outbox", second))
    first.broken = False
    all_.drain()
    read = [one.shard for _ in range(2) for one in await all_.read(1)]
    assert read == [0]
