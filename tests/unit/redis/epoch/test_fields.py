"""The task that goes through all hashes, with a ledger that answers as the test says."""

import asyncio
from typing import Any, cast

from bridge.limits import FieldLimits
from bridge.redis.epoch.fields import Fields
from bridge.redis.protocol.fields import FieldHints
from bridge.redis.protocol.own_keys import Names


class Overwritten:
    """Another program overwrites it while it is gone through."""

    def __init__(self) -> None:
        self.scanned: list[int] = []

    async def known(self, cursor: int) -> tuple[int, list[bytes]] | None:
        return None if cursor else (17, [b"known"])

    async def hashes(self, cursor: int, match: bytes) -> tuple[int, list[bytes]]:
        del match
        self.scanned.append(cursor)
        return (0, [b"last"]) if cursor else (5, [b"first"])


async def test_the_keyspace_is_gone_through_from_its_beginning_though_the_ledger_was_overwritten() -> None:
    ledger = Overwritten()
    fields = cast("Any", Fields.__new__(Fields))
    fields._ledger, fields._match, fields._limits = ledger, b"*", FieldLimits()
    fields._hints, fields._wake = FieldHints(Names("expiry-bridge", 0), None), asyncio.Event()
    await fields._go_through()
    assert ledger.scanned == [0, 5]
    assert fields._hints.unread() == {b"known", b"first", b"last"}


async def test_hints_are_lost_until_all_hashes_were_read_once_more() -> None:
    fields = cast("Any", Fields.__new__(Fields))
    hints = fields._hints = FieldHints(Names("expiry-bridge", 0), None)
    fields._limits, fields._lowest_ms, fields._hashes = FieldLimits(waiting=1), None, 0
    fields._room, fields._again = asyncio.Event(), asyncio.Event()
    fields._listed, fields._through, fields._owed = False, True, set()
    for key in (b"a", b"b"):
        hints.add(key)
    await fields.step()
    assert (len(hints), hints.lost, fields._again.is_set()) == (0, True, True)

    hints.wait(b"mark", [b"a"], [])
    fields._listed = True  # all were handed over, and one of them is not read yet
    await fields.step()
    assert hints.lost

    fields._owed.clear()
    await fields.step()
    assert not hints.lost
