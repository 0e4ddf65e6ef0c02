"""The outbox, when the primary moves while it is read."""

import asyncio
from typing import cast

import msgpack

from bridge.expiration import Identity
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.telemetry.events import Telemetry

Fields = dict[bytes, bytes]


class Server:
    """The outbox of one server. It answers when it is let."""

    def __init__(self, *entry_ids: bytes) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self._entry_ids = entry_ids

    async def entries(self, after: bytes, limit: int) -> list[tuple[bytes, Fields]]:
        """See `Ledger`."""
        self.asked.set()
        await self.answers.wait()
        claims = msgpack.packb([b"k", 1, b"n"])
        return [(id_, {b"at": b"2", b"claims": claims}) for id_ in self._entry_ids if id_ > after][:limit]


async def test_what_the_former_primary_answers_late_is_not_taken_for_the_outbox_of_the_new_one() -> None:
    former, latter = Server(b"2-1", b"2-2"), Server(b"1-1", b"3-1")
    outbox = Outbox(cast("Ledger", former), Identity("/redis", 0), 10, LedgerLimits(), Telemetry().shard())
    outbox.open()
    reading = asyncio.create_task(outbox.next(10))
    await former.asked.wait()
    outbox.move(cast("Ledger", latter))
    outbox.open()
    latter.answers.set()
    former.answers.set()
    assert [entry.id for entry in await reading] == [b"1-1", b"3-1"]
