"""The rules of the ledger protocol that a cluster adds, one step at a time, as in `test_traces.py`.

Redis expires only what is read here, so the order of steps is the test's own. Where one node is enough, it has all
slots, and so whatever another node's ledger might have been.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from redis.asyncio import Redis

from bridge.expiration import Event
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.errors import Fenced
from bridge.redis.wire.server import DATABASES, databases
from tests.support.harness.cluster_hand import ClusterHand, Played, key_of
from tests.support.harness.user import NAMES, expired, passed
from tests.support.redis.commands import redis_ms, set_for
from tests.support.servers import RedisServer, ValkeyServer, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.measured]

LONG_MS = 60_000
RECORDED = """
redis.call('SET', ARGV[2], '', 'PX', 1)
local deadline = redis.call('PEXPIRETIME', ARGV[2])
redis.call('ZADD', ARGV[1], deadline, ARGV[2])
return deadline
"""
"""A key that expires in a moment, with a ledger that knows of it already."""
OTHER, THIRD = 7, 9
"""Numbers of ledgers that are no primary's."""


@pytest.fixture
async def one(redis_kind: type[RedisServer]) -> AsyncIterator[Played]:
    """A node with all slots."""
    async with Played.of(redis_kind, 1) as played:
        yield played


@pytest.fixture
async def two(redis_kind: type[RedisServer]) -> AsyncIterator[Played]:
    """Two nodes."""
    async with Played.of(redis_kind, 2) as played:
        yield played


async def scores(user: Redis, name: bytes) -> dict[bytes, float]:
    """A whole sorted set."""
    return dict(cast("list[tuple[bytes, float]]", await user.zrange(name, 0, -1, withscores=True)))


async def events(hand: ClusterHand) -> list[Event]:
    """What is in its outbox."""
    return [event for entry in await hand.entries() for event in entry.events]


async def test_an_entry_of_another_node_is_placed_once_and_only_where_nobody_was_told_of_its_key(one: Played) -> None:
    (node,) = one.cluster.nodes
    user = one.users[node]
    before = await redis_ms(user) - 1000
    hand = await one.hand(node)
    alive = await set_for(user, b"alive", LONG_MS)
    await set_for(user, b"heard", 1)
    dump = await user.dump(b"alive")
    assert dump is not None
    await expired(user, b"heard")
    await user.restore(b"restored", 1, dump)
    await expired(user, b"restored")
    await hand.hear()
    entries = {b"alive": alive - 5, b"heard": before, b"restored": before, b"gone": before, b"later": alive}
    await user.zadd(hand.names.moved, cast("dict[str, float]", entries))
    late = list(entries.items())

    hand.migrated.arrivals.extend(late * 2)
    await hand.handle()
    assert await user.zrange(hand.names.moved, 0, -1) == []
    assert await scores(user, hand.names.deadlines) == {b"alive": alive, b"gone": before}
    await hand.sweep()
    await user.zadd(hand.names.moved, {b"alive": alive + 1})
    hand.migrated.arrivals.extend(late)  # from a page that was read before
    await hand.handle()
    await hand.sweep()
    assert await scores(user, hand.names.moved) == {b"alive": alive + 1}
    claims = await hand.claimed()
    assert sorted(claim.key for claim in claims) == [b"gone", b"heard", b"restored"]
    assert [claim.deadline_ms for claim in claims if claim.key == b"gone"] == [before]
    assert await user.zrange(hand.names.deadlines, 0, -1) == [b"alive"]


async def test_an_entry_whose_expiration_had_to_be_heard_is_looked_at_twice_and_let_go(one: Played) -> None:
    (node,) = one.cluster.nodes
    user, hand = one.users[node], await one.hand(node)
    deadline = await redis_ms(user)
    await passed(user, deadline)
    await user.zadd(hand.names.moved, {b"deleted": deadline})
    await hand.place()
    assert await user.zrange(hand.names.moved, 0, -1) == [b"deleted"]
    await hand.place()
    assert await user.exists(hand.names.moved, hand.names.deadlines) == 0
    await hand.sweep()
    assert await hand.claimed() == []


async def overdue(played: Played, hand: ClusterHand, slot: int) -> dict[bytes, int]:
    """Keys in that slot that are past their deadlines, which the ledger knows; Redis has not noticed."""
    (user,) = [played.users[node] for node in played.users if await played.cluster.number(node) == hand.names.shard]
    entries = {key: await set_for(user, key, 1) for key in (key_of(slot, number) for number in range(3))}
    await user.zadd(hand.names.deadlines, cast("dict[str, float]", entries))
    await passed(user, max(entries.values()))
    return entries


async def expire(played: Played, node: RedisServer, slot: int) -> None:
    """Let Redis notice."""
    await played.cluster.ask(node, "DEBUG", "SET-ACTIVE-EXPIRE", 1)

    async def are_expired() -> bool:
        return bool(await played.cluster.ask(node, "CLUSTER", "COUNTKEYSINSLOT", slot) == 0)

    await wait_until(are_expired, "active expiration")
    await played.cluster.ask(node, "DEBUG", "SET-ACTIVE-EXPIRE", 0)


async def stuck(hand: ClusterHand) -> tuple[set[bytes], int]:
    """Touch what is due: what is seen of it, and how much of that cannot be resolved."""
    seen = {state for _, _, state, _ in (await hand.touch()).sights}
    await hand.hear()
    while hand.interpreter.waiting:
        await hand.send(hand.batch())
    finished = hand.marks.finished_round()
    assert finished is not None
    return seen, finished.stuck


async def test_what_is_due_in_a_slot_on_its_way_waits_and_is_claimed_once(two: Played) -> None:
    source, target = await two.cluster.primaries()
    user = two.users[source]
    here, there = await two.hand(source), await two.hand(target)
    slot = await two.cluster.ledger_slot(source) + 1
    entries = await overdue(two, here, slot)
    key = next(iter(entries))
    await two.users[target].zadd(there.names.deadlines, {key: entries[key]})
    await two.cluster.open_slot(slot, target)
    for hand in (here, there):
        await hand.close_gap()

    assert await stuck(here) == ({b"moved"}, 3)
    assert await stuck(there) == ({b"gone"}, 1)
    assert await user.exists(here.names.moved) == 0
    await expire(two, source, slot)
    await here.handle()
    await here.sweep()
    await two.cluster.close_slot(slot, target)
    await two.known_there(lambda: two.topology.away(here.names.shard, key))
    await here.sweep()
    assert sorted((claim.key, claim.deadline_ms) for claim in await here.claimed()) == sorted(entries.items())
    assert await user.exists(here.names.deadlines, here.names.moved) == 0
    assert await there.claimed() == []


async def test_while_a_gap_is_open_what_is_due_in_a_slot_on_its_way_waits_beside_the_ledger(two: Played) -> None:
    source, target = await two.cluster.primaries()
    here, there = await two.hand(source), await two.hand(target)
    slot = await two.cluster.ledger_slot(source) + 1
    entries = await overdue(two, here, slot)
    await two.cluster.open_slot(slot, target)

    assert await stuck(here) == ({b"moved"}, 0)
    assert await scores(two.users[source], here.names.moved) == entries
    assert await two.users[source].exists(here.names.deadlines) == 0
    await expire(two, source, slot)
    await here.handle()
    assert {claim.key for claim in await here.claimed()} == entries.keys()
    await two.cluster.close_slot(slot, target)
    await two.known_there(lambda: two.topology.away(here.names.shard, next(iter(entries))))
    await two.topology.hand_over(there.names.shard, list(entries.items()))
    await there.place()
    await there.sweep()
    assert await there.claimed() == []
    assert await two.users[target].exists(there.names.moved, there.names.deadlines) == 0
    assert len(await here.claimed()) == len(entries)


async def test_what_cannot_be_handed_over_stays_until_it_can_be(two: Played) -> None:
    source, target = await two.cluster.primaries()
    hand, user, other = await two.hand(source), two.users[source], two.users[target]
    key = key_of((await two.cluster.slots(target))[0])
    await user.zadd(hand.names.moved, {key: LONG_MS})
    theirs = NAMES.of(await two.cluster.number(target)).moved
    placement = hand.placement()
    target.pause()
    await placement.go_through()
    assert await user.zrange(hand.names.moved, 0, -1) == [key]
    target.resume()
    await placement.go_through()
    assert await user.exists(hand.names.moved) == 0
    assert await other.zrange(theirs, 0, -1, withscores=True) == [(key, LONG_MS)]


async def test_a_stray_is_adopted_part_by_part_and_its_messages_keep_their_ids(one: Played) -> None:
    (node,) = one.cluster.nodes
    user, stray = one.users[node], await one.hand(node, OTHER)
    await stray.close_gap()
    await set_for(user, b"unknown", 1)
    known = await set_for(user, b"known", LONG_MS)
    await stray.record(b"known")
    await user.pexpire(b"known", 1)
    for key in (b"unknown", b"known"):
        await expired(user, key)
    await stray.handle()
    await user.zadd(stray.names.deadlines, {b"known": known - LONG_MS})
    await stray.sweep()
    told = await events(stray)
    assert len(told) == 4
    await user.zadd(stray.names.deadlines, {b"k%d" % number: number for number in range(600)})
    await user.zadd(stray.names.moved, {b"sent": 5})
    await user.xadd(stray.names.dead, {b"reason": b"none"})
    hand = await one.hand(node)

    assert await hand.adopt(OTHER) == "held"
    assert await events(stray) == told
    await user.hset(stray.names.lease, "holder", f"hand-{hand.names.shard}")  # its own need not run out
    assert cast("int", await hand.adopt(OTHER)) > 0
    with pytest.raises(Fenced):
        await stray.ledger.apply(stray.batch())
    hand._seq -= 1
    assert await hand.adopt(OTHER) == "DONE"
    stale = hand.lease.fence
    await hand.begin()  # as if it had been killed there
    with pytest.raises(Fenced):
        await hand.ledger.adopt(stale, 100, OTHER)
    await wholly(hand, OTHER)
    await intact(hand, stray.names, told)

    third = await one.hand(node, THIRD)
    await user.hset(hand.names.lease, "until", 0)
    await wholly(third, hand.names.shard)
    await intact(third, hand.names, told)


async def wholly(hand: ClusterHand, number: int) -> None:
    """Adopt all that is left of a ledger."""
    while await hand.adopt(number):
        pass


async def intact(hand: ClusterHand, former: Names, told: list[Event]) -> None:
    """Check that all of it is in the ledger of that epoch now, and nothing is left where it was."""
    user = hand._client
    assert await events(hand) == told
    assert await user.hget(hand.names.lease, "depth") == b"3"
    assert await scores(user, hand.names.moved) == {b"sent": 5, **{b"k%d" % number: number for number in range(600)}}
    assert [fields for _, fields in await user.xrange(hand.names.dead) or ()] == [{b"reason": b"none"}]
    for name in (former.lease, former.deadlines, former.moved, former.outbox, former.dead):
        assert await user.exists(name) == 0


async def test_all_of_a_node_can_be_audited_also_where_its_configuration_may_not_be_read(one: Played) -> None:
    (node,) = one.cluster.nodes
    await one.users[node].execute_command("ACL", "SETUSER", "default", "-config|get")  # type: ignore[no-untyped-call]
    endpoint = one.topology.endpoint.at(("127.0.0.1", node.port))
    assert await databases(one.users[node], endpoint) in {1, DATABASES}


async def another_epoch(played: Played, node: RedisServer, hand: ClusterHand) -> ClusterHand:
    """The bridge dies, and another one takes over: what was known only to the process is gone."""
    hand.end()
    played.another_process()
    await played.users[node].hset(hand.names.lease, "until", 0)
    return await played.hand(node)


@pytest.mark.parametrize("late_ms", [0, 1], ids=["the same deadline", "MIGRATE counted the TTL anew"])
async def test_what_a_dead_bridge_has_claimed_of_a_key_that_came_is_not_claimed_again(
    one: Played, late_ms: int
) -> None:
    (node,) = one.cluster.nodes
    user, hand = one.users[node], await one.hand(node)
    known = int(await user.eval(RECORDED, 0, hand.names.deadlines, b"known"))
    unknown = await set_for(user, b"unknown", 1)
    for key in (b"known", b"unknown"):
        await expired(user, key)
    await hand.handle()
    claims = await hand.claimed()
    assert [(claim.key, claim.deadline_ms) for claim in claims] == [(b"known", known), (b"unknown", None)]
    entries = {b"known": known - late_ms, b"unknown": unknown - late_ms}
    await user.zadd(hand.names.moved, cast("dict[str, float]", entries))

    hand = await another_epoch(one, node, hand)
    await hand.place()
    await hand.sweep()
    assert await hand.claimed() == claims
    assert await user.exists(hand.names.moved, hand.names.deadlines) == 0


async def test_what_a_dead_bridge_has_heard_to_be_deleted_does_not_expire_when_its_former_entry_comes(
    one: Played,
) -> None:
    (node,) = one.cluster.nodes
    user, hand = one.users[node], await one.hand(node)
    deadline = await set_for(user, b"deleted", LONG_MS)
    await hand.record(b"deleted")
    await user.delete(b"deleted")
    await hand.handle()
    (score,) = (await scores(user, hand.names.ended)).values()
    assert score == deadline
    soon = await redis_ms(user)  # as if that deadline were past
    await user.zadd(hand.names.ended, {b"deleted": soon})
    await passed(user, soon)
    await user.zadd(hand.names.moved, {b"deleted": soon - 1})

    hand = await another_epoch(one, node, hand)
    await hand.place()
    await hand.sweep()
    assert await hand.claimed() == []


async def test_a_later_life_is_not_taken_for_one_that_was_deleted(one: Played) -> None:
    """It went to another node, expired there while nobody listened, and its entry comes back with the slot."""
    (node,) = one.cluster.nodes
    user, hand = one.users[node], await one.hand(node)
    await set_for(user, b"again", LONG_MS)
    await hand.record(b"again")
    await user.delete(b"again")
    await set_for(user, b"again", LONG_MS // 2)
    await hand.handle()
    deadline = await redis_ms(user) + 5
    hand = await another_epoch(one, node, hand)
    await user.zrem(hand.names.deadlines, b"again")
    await user.delete(b"again")
    await hand.hear()
    while hand.inbox:
        hand.inbox.take()
    await passed(user, deadline)
    await user.zadd(hand.names.moved, {b"again": deadline})

    hand = await another_epoch(one, node, hand)
    await hand.place()
    await hand.sweep()
    assert [claim.deadline_ms for claim in await hand.claimed()] == [deadline]


@pytest.mark.parametrize("until", ["", "1"], ids=["never", "no longer"])
async def test_while_no_slots_move_no_ends_are_noted_and_those_noted_before_go(one: Played, until: str) -> None:
    (node,) = one.cluster.nodes
    user, hand = one.users[node], await one.hand(node)
    await user.hset(hand.names.lease, "noting", until)
    await user.zadd(hand.names.ended, {b"before": 1})
    await set_for(user, b"key", 1)
    await expired(user, b"key")
    await hand.handle()
    assert await user.exists(hand.names.ended) == 0
    await hand.touch(moving=True)
    await set_for(user, b"key", 1)
    await expired(user, b"key")
    await hand.handle()
    assert await user.zrange(hand.names.ended, 0, -1) == [b"key"]


async def test_a_ledger_that_is_adopted_brings_the_ends_that_were_noted(one: Played) -> None:
    (node,) = one.cluster.nodes
    user, stray = one.users[node], await one.hand(node, OTHER)
    deadline = await set_for(user, b"key", 1)
    await expired(user, b"key")
    await stray.handle()
    await user.hset(stray.names.lease, "until", 0)
    await user.zadd(stray.names.moved, {b"key": deadline})
    hand = await one.hand(node)
    await wholly(hand, OTHER)
    assert await user.exists(stray.names.ended) == 0
    hand = await another_epoch(one, node, hand)
    await hand.place()
    await hand.sweep()
    assert [claim.deadline_ms for claim in await hand.claimed()] == [None]


@asynccontextmanager
async def carried(two: Played, there: ClusterHand, slot: int) -> AsyncIterator[None]:
    """Valkey carries the slot as a whole: what is done now goes there after what was there before."""
    source, target = await two.cluster.primaries()
    await two.cluster.ask(source, "DEBUG", "SLOTMIGRATION", "PREVENT-PAUSE", 1)
    carrying = asyncio.create_task(two.cluster.migrate(range(slot, slot + 1), target))
    sign = key_of(slot, 1)

    async def is_carried() -> bool:
        await set_for(two.users[source], sign, LONG_MS)
        return await is_told(there, sign)

    await wait_until(is_carried, "the slot on its way")
    yield
    await two.cluster.ask(source, "DEBUG", "SLOTMIGRATION", "PREVENT-PAUSE", 0)
    await carrying


@pytest.mark.parametrize("handled", ["before the slot is known to be here", "after"])
async def test_what_expires_while_its_slot_is_carried_is_claimed_though_the_new_node_tells_of_a_deletion(
    handled: str,
) -> None:
    async with Played.of(ValkeyServer, 2) as two:
        source, target = await two.cluster.primaries()
        here, there = await two.hand(source), await two.hand(target)
        for hand in (here, there):
            await hand.close_gap()
            await hand.touch(moving=True)
            await hand.handle()
        user, slot = two.users[source], await two.cluster.ledger_slot(source) + 1
        key = key_of(slot)
        deadline = await set_for(user, key, 500)
        await user.zadd(here.names.deadlines, {key: deadline})
        async with carried(two, there, slot):
            await passed(user, deadline)
            await expired(user, key)
        await there.hear()
        assert (b"__keyevent@0__:del", key) in list(there.inbox)
        if handled != "after":
            await there.handle()
        await two.known_there(lambda: two.topology.away(here.names.shard, key))
        there.migrated.came({slot}, await there.ledger.now_ms())
        await there.handle()
        await here.touch()  # what was notified here is lost with the epoch
        await here.hear()
        here.inbox.clear()
        assert await user.zrange(here.names.deadlines, 0, -1) == [key]
        await two.topology.hand_over(there.names.shard, [(key, deadline)])
        await there.sweep()  # its mark proves that nothing older is to come
        await there.place()
        await there.sweep()
        assert [(claim.key, claim.deadline_ms) for claim in await there.claimed()] == [(key, deadline)]


async def is_told(hand: ClusterHand, key: bytes) -> bool:
    """Whether something was notified of the key, and not handled."""
    await hand.hear()
    return key in [name for _, name in hand.inbox]


async def test_what_is_set_while_its_slot_is_carried_and_overdue_when_it_comes_is_not_left_to_redis() -> None:
    async with Played.of(ValkeyServer, 2) as two:
        source, target = await two.cluster.primaries()
        here, there = await two.hand(source), await two.hand(target)
        for hand in (here, there):
            await hand.close_gap()
        user, slot = two.users[source], await two.cluster.ledger_slot(source) + 1
        async with carried(two, there, slot):
            key = key_of(slot)
            deadline = await set_for(user, key, 50)
            await wait_until(partial(is_told, there, key), "the key on the target")
            await there.handle()
            await passed(user, deadline)
        await two.known_there(lambda: two.topology.away(here.names.shard, key))
        assert await there.claimed() == []
        await there.scan()
        await there.handle()
        assert [(claim.key, claim.deadline_ms) for claim in await there.claimed()] == [(key, None)]
