"""The outbox: what is read of it, and when the primary moves while it is read."""

import asyncio
from collections.abc import Callable
from typing import cast

import msgpack
import pytest

from bridge.clock import SystemClock
from bridge.contracts import Settlement
from bridge.errors import NotConnected
from bridge.expiration import Identity
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Settled
from bridge.telemetry.events import Telemetry

Fields = dict[bytes, bytes]
CLAIMS = msgpack.packb([b"k", 1, b"n"])


class Server:
    """The outbox of one server. It answers when it is let, with what it had when it was asked."""

    def __init__(self, *entry_ids: bytes) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.questions = 0
        self.error: Exception | None = None
        self.entry_ids = list(entry_ids)

    async def settle(self, arguments: object) -> Settled:
        """See `Ledger`."""
        del arguments
        return Settled(0, 0)

    async def entry(self, entry_id: bytes) -> list[tuple[bytes, Fields]]:
        """See `Ledger`."""
        self.asked.set()
        await self.answers.wait()
        return [(entry_id, {b"at": b"2", b"claims": CLAIMS})] if entry_id in self.entry_ids else []

    async def entries(self, after: bytes, limit: int) -> tuple[list[tuple[bytes, Fields]], bool]:
        """See `Ledger`."""
        self.questions += 1
        found = [(id_, {b"at": b"2", b"claims": CLAIMS}) for id_ in self.entry_ids if id_ > after][:limit]
        self.asked.set()
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return found, len(found) >= limit


def outbox_on(server: Server) -> Outbox:
    outbox = Outbox(cast("Ledger", server), Identity("/redis", 0), 10, LedgerLimits(), Telemetry().shard())
    outbox.open()
    return outbox


async def test_what_was_read_to_its_end_is_not_read_again_before_there_is_more() -> None:
    server = Server(b"1-1", b"1-2", b"1-3")
    server.answers.set()
    outbox = outbox_on(server)
    assert [entry.id for entry in await outbox.next(2)] == [b"1-1", b"1-2"]
    assert [entry.id for entry in await outbox.next(2)] == [b"1-3"]
    assert not await outbox.next(2)
    assert server.questions == 2
    server.entry_ids.append(b"1-4")
    outbox.added()
    assert [entry.id for entry in await outbox.next(2)] == [b"1-4"]


async def test_what_is_added_while_it_is_read_is_looked_for() -> None:
    server = Server(b"1-1")
    outbox = outbox_on(server)
    reading = asyncio.create_task(outbox.next(2))
    await server.asked.wait()
    outbox.added()
    server.answers.set()
    assert [entry.id for entry in await reading] == [b"1-1"]
    assert outbox.news


class NeverAskedUnasked(SystemClock):
    """A clock by which nobody waits long enough to look unasked."""

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """See `Clock`."""
        timer = super().later(seconds, act)
        timer.cancel()
        return timer


def of_shards(*servers: Server) -> tuple[Outboxes, list[Outbox]]:
    outboxes, limits, identity = Outboxes(NeverAskedUnasked(), LedgerLimits()), LedgerLimits(), Identity("/redis", 0)
    members = [
        Outbox(cast("Ledger", server), identity, 10, limits, Telemetry().shard(number), outboxes.wake, shard=number)
        for number, server in enumerate(servers)
    ]
    for outbox in members:
        outboxes.add(outbox)
        outbox.open()
    return outboxes, members


async def test_what_comes_while_an_answer_waits_to_be_taken_is_asked_for() -> None:
    first, second = Server(), Server(b"1-1")
    second.answers.set()
    outboxes, (outbox, _) = of_shards(first, second)
    assert [entry.id for entry in await outboxes.read(10)] == [b"1-1"]
    first.answers.set()
    await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name() == "read-0"])
    first.entry_ids.append(b"2-1")
    outbox.added()

    assert [entry.id for entry in await asyncio.wait_for(outboxes.read(10), 10)] == [b"2-1"]
    await outboxes.close()


async def test_what_comes_while_one_is_asked_is_asked_for_by_whoever_reads_next() -> None:
    first, second = Server(), Server(b"1-1")
    second.answers.set()
    outboxes, (outbox, _) = of_shards(first, second)
    assert [entry.id for entry in await outboxes.read(10)] == [b"1-1"]
    await first.asked.wait()
    first.entry_ids.append(b"2-1")
    outbox.added()
    reading = asyncio.create_task(outboxes.read(10))
    await asyncio.sleep(0)
    first.answers.set()

    assert [entry.id for entry in await asyncio.wait_for(reading, 10)] == [b"2-1"]
    await outboxes.close()


@pytest.mark.parametrize("shards", [1, 2])
async def test_what_is_settled_while_it_is_read_does_not_come_again(shards: int) -> None:
    first, *others = servers = [Server(b"1-1", b"1-2"), *(Server() for _ in range(shards - 1))]
    for server in others:
        server.answers.set()
    outboxes, _ = of_shards(*servers)
    reading = asyncio.create_task(outboxes.read(10))
    await first.asked.wait()
    await outboxes.settle([Settlement(0, b"1-1", 1)])  # it was read, and published, in a former epoch
    first.answers.set()

    assert [entry.id for entry in await reading] == [b"1-2"]
    await outboxes.close()


def entry(entry_id: bytes) -> tuple[bytes, Fields]:
    return entry_id, {b"at": b"2", b"claims": msgpack.packb([b"k", 1, b"n"])}


async def read_to_its_end(*entry_ids: bytes) -> tuple[Server, Outbox]:
    server = Server(*entry_ids)
    server.answers.set()
    outbox = outbox_on(server)
    assert outbox.room == 0
    while outbox.news:
        await outbox.next(10)
    assert outbox.room > 0
    return server, outbox


async def test_an_entry_that_its_script_has_told_is_not_read_again() -> None:
    server, outbox = await read_to_its_end(b"1-1")
    for number in (2, 4, 5):
        server.entry_ids.append(b"1-%d" % number)
        outbox.added(entry(b"1-%d" % number))
    assert [found.id for found in await outbox.next(2)] == [b"1-2", b"1-4"]
    assert [found.id for found in await outbox.next(2)] == [b"1-5"]
    assert not outbox.news
    assert server.questions == 1


async def test_an_entry_that_nobody_has_told_is_read_with_all_behind_it() -> None:
    server, outbox = await read_to_its_end()
    server.entry_ids += [b"1-1", b"1-2", b"1-3"]
    outbox.added(entry(b"1-1"))
    outbox.added()
    assert outbox.room == 0
    outbox.added(entry(b"1-3"))
    assert [found.id for found in await outbox.next(10)] == [b"1-1", b"1-2", b"1-3"]
    assert outbox.room > 0
    assert not await outbox.next(10)


async def test_an_entry_that_was_read_before_its_script_has_told_it_comes_once() -> None:
    server, outbox = await read_to_its_end()
    server.entry_ids += [b"1-9", b"1-10"]
    assert [found.id for found in await outbox.next(10, anyway=True)] == [b"1-9", b"1-10"]
    outbox.added(entry(b"1-9"))
    outbox.added(entry(b"1-10"))
    assert not await outbox.next(10)


async def test_an_entry_that_its_script_tells_while_it_is_read_comes_once() -> None:
    server, outbox = await read_to_its_end()
    server.answers.clear()
    server.asked.clear()
    server.entry_ids.append(b"1-1")
    reading = asyncio.create_task(outbox.next(10, anyway=True))
    await server.asked.wait()
    outbox.added(entry(b"1-1"))
    outbox.added(entry(b"1-2"))
    server.answers.set()
    assert [found.id for found in await reading] == [b"1-1"]
    assert [found.id for found in await outbox.next(10)] == [b"1-2"]
    assert not outbox.news


async def test_what_a_former_epoch_was_told_is_read_anew_in_the_next_one() -> None:
    server, outbox = await read_to_its_end(b"1-1")
    server.entry_ids.append(b"1-2")
    outbox.added(entry(b"1-2"))
    outbox.pause()
    outbox.added(entry(b"1-3"))
    assert not await outbox.next(10)
    outbox.open()
    assert [found.id for found in await outbox.next(10)] == [b"1-1", b"1-2"]


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    server, outbox = await read_to_its_end()
    room, number = outbox.room, 100
    while outbox.room:
        number += 1
        server.entry_ids.append(b"1-%d" % number)
        fits = outbox.room >= 10_000
        outbox.added((b"1-%d" % number, {**entry(b"")[1], b"more": b"x" * 10_000}) if fits else None)
    assert number - 100 <= room / 10_000 + 1
    read = [found.id for _ in server.entry_ids for found in await outbox.next(10)]
    assert read == server.entry_ids


async def test_that_a_server_cannot_be_read_is_said_only_while_the_lease_is_ours() -> None:
    server = Server(b"1-1")
    server.error = NotConnected("cut off")
    server.answers.set()
    outbox = outbox_on(server)
    with pytest.raises(NotConnected):
        await outbox.next(10)
    server.answers.clear()
    server.asked.clear()
    reading = asyncio.create_task(outbox.next(10))
    await server.asked.wait()
    outbox.pause()
    server.answers.set()
    assert not await reading


async def test_what_the_former_primary_answers_late_is_not_taken_for_the_outbox_of_the_new_one() -> None:
    former, latter = Server(b"2-1", b"2-2"), Server(b"1-1", b"3-1")
    outbox = outbox_on(former)
    reading = asyncio.create_task(outbox.next(10))
    await former.asked.wait()
    outbox.move(cast("Ledger", latter))
    outbox.open()
    latter.answers.set()
    former.answers.set()
    assert [entry.id for entry in await reading] == [b"1-1", b"3-1"]


async def test_an_entry_is_read_again_as_long_as_it_is_there_and_the_lease_is_ours() -> None:
    server = Server(b"1-1", b"1-2")
    server.answers.set()
    outbox = outbox_on(server)
    first, second = await outbox.next(10)
    assert await outbox.again(b"1-2") == second
    server.entry_ids.remove(b"1-1")
    assert await outbox.again(first.id) is None
    assert not outbox.news, "that was no reading on"
    outbox.pause()
    with pytest.raises(NotConnected):
        await outbox.again(b"1-2")


async def test_when_the_primary_moves_whoever_reads_an_entry_again_does_not_wait_for_the_former_one() -> None:
    frozen = Server(b"1-1")
    outbox = outbox_on(frozen)
    asking = asyncio.create_task(outbox.again(b"1-1"))
    await frozen.asked.wait()
    outbox.move(cast("Ledger", Server()))
    with pytest.raises(NotConnected):
        await asking


async def test_an_entry_of_a_shard_that_is_another_bridges_now_is_gone() -> None:
    outboxes = Outboxes(SystemClock(), LedgerLimits())
    assert await outboxes.again(3, b"1-1") is None
