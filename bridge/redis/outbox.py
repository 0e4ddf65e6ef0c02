"""The outbox as delivery sees it: the Source of `bridge/contracts.py`.

Guarantees: every entry is read at least once in every epoch, oldest first, for as long as this bridge holds the lease;
what is settled is gone for good. Does not remember what was read in another epoch: who reads skips what it has under
way.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import msgpack

from bridge.contracts import Entry, Settlement
from bridge.expiration import Event, Expiration, GapRecord, Identity, Via
from bridge.redis.ledger import Argument, Ledger
from bridge.redis.letters import fields_of
from bridge.telemetry.events import Telemetry

START = b"0-0"
POLL_INTERVAL = 1.0
"""Seconds after which the outbox is looked at unasked, should a wake-up ever be missing."""
_VIA = {b"n": Via.NOTIFICATION, b"s": Via.SWEEP}


class Outbox:
    """Claimed expirations of one shard."""

    def __init__(self, ledger: Ledger, identity: Identity, limit: int, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._identity = identity
        self._limit = limit
        self._telemetry = telemetry
        self._was_full = False
        self._cursor = START
        self._ours = False
        self._draining = False
        self._wake = asyncio.Event()
        self.depth = 0
        """Expirations waiting, as last heard."""

    # What the epoch calls.

    def open(self) -> None:
        """A new epoch holds the lease: read from the beginning."""
        self._cursor = START
        self._ours = True
        self._wake.set()

    def hand_over(self) -> None:
        """Another bridge holds the lease: it delivers now."""
        self._ours = False

    def added(self) -> None:
        """There is more to read."""
        self._wake.set()

    def full(self) -> bool:
        """Whether so much waits for the broker that touching has to pause. A claim is never refused for that."""
        full = self.depth >= self._limit
        if full != self._was_full:
            self._was_full = full
            if full:
                self._telemetry.outbox_filled(self._limit)
            else:
                self._telemetry.outbox_relieved()
        return full

    def drain(self) -> None:
        """Nothing will be added any more: `read` returns nothing once all is read, instead of waiting."""
        self._draining = True
        self._wake.set()

    # The Source contract.

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `Source.read`."""
        while True:
            self._wake.clear()
            cursor = self._cursor
            found = await self._ledger.entries(cursor, limit) if self._ours else []
            if found and self._ours and cursor == self._cursor:
                self._cursor = found[-1][0]
                return [entry_of(self._identity, entry_id, fields) for entry_id, fields in found]
            if self._draining and not found:
                return ()
            if not found:
                await self._woken()

    async def settle(self, settlements: Sequence[Settlement]) -> tuple[int, int]:
        """See `Source.settle`."""
        arguments: list[Argument] = []
        for settlement in settlements:
            entry = settlement.entry
            expirations = sum(isinstance(event, Expiration) for event in entry.events)
            arguments += (entry.id, expirations, len(settlement.dead))
            for letter in settlement.dead:
                words = fields_of(letter)
                arguments += (len(words), *words)
        self.depth, dead = await self._ledger.settle(arguments)
        return self.depth, dead

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(POLL_INTERVAL):
                await self._wake.wait()
        except TimeoutError:
            pass  # look again


def entry_of(identity: Identity, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """An entry as it lies in Redis, read."""
    events: list[Event] = []
    if b"claims" in fields:
        events += _expirations(identity, entry_id, int(fields[b"at"]), fields[b"claims"])
    if b"gap" in fields:
        events.append(_gap(identity, entry_id, fields[b"gap"]))
    return Entry(entry_id, events)


def _expirations(identity: Identity, entry_id: bytes, observed_ms: int, packed: bytes) -> Iterator[Expiration]:
    flat = iter(cast("list[bytes | int | bool]", msgpack.unpackb(packed, raw=True)))
    for index, (name, deadline, by) in enumerate(zip(flat, flat, flat, strict=True)):
        key, via = cast("bytes", name), _VIA[cast("bytes", by)]
        if deadline is False:
            yield Expiration(identity.of_entry(key, entry_id, index), key, None, observed_ms, via)
        else:
            deadline_ms = int(deadline)
            yield Expiration(identity.of_deadline(key, deadline_ms), key, deadline_ms, observed_ms, via)


def _gap(identity: Identity, entry_id: bytes, packed: bytes) -> GapRecord:
    node, opened, closed, cause, missed, recovered, ambiguous = msgpack.unpackb(packed, raw=True)
    name = node.decode()
    return GapRecord(
        identity.of_gap(name, entry_id),
        name,
        int(opened),
        int(closed),
        cause.decode(),
        int(missed) if missed else None,
        int(recovered),
        int(ambiguous),
    )
