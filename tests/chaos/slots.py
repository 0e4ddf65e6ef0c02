"""What is done to the slots of a cluster, and so to the keys in them."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.chaos.faults import REDIS, Fault, Target
from tests.chaos.replicated import Clustered
from tests.support.deployments.scene import now_ms
from tests.support.redis.nodes import slot_of
from tests.support.servers import RedisServer, ValkeyServer

LATE_MS = 5_000
"""How late an expiration may be claimed by who holds the ledger, be it a frozen bridge."""
LOT = 6
"""Slots that move at once, at most."""
HALF_WAY = 0.5
"""Seconds that a slot may be on its way, at most."""


class Slots:
    """The faults, as methods: `work` of a `Fault`."""

    def __init__(self, topology: Clustered) -> None:
        self._topology = topology

    async def _lot(self, chance: random.Random) -> tuple[list[int], RedisServer]:
        """Some slots with keys, and another primary."""
        source, to = chance.sample(await self._topology.primaries(), 2)
        slots = await self._topology.occupied(source)
        return chance.sample(slots, min(len(slots), chance.randint(1, LOT))), to

    @asynccontextmanager
    async def moved(self, target: Target) -> AsyncIterator[None]:
        """Carry slots to another node, with pauses in between."""
        await self._carry(*await self._lot(target.chance), target.chance)
        yield

    async def _carry(self, slots: Sequence[int], to: RedisServer, chance: random.Random) -> None:
        cluster = self._topology.cluster
        self._topology.moved_slots.update(slots)
        for slot in slots:
            await cluster.open_slot(slot, to)
            await asyncio.sleep(chance.uniform(0, HALF_WAY))
            await cluster.move_keys(slot, to, chance.randint(1, 20))
            await asyncio.sleep(chance.uniform(0, HALF_WAY))
            await cluster.move_keys(slot, to)
            await cluster.close_slot(slot, to)

    @asynccontextmanager
    async def migrated(self, target: Target) -> AsyncIterator[None]:
        """The same in one step, as only Valkey can."""
        slots, to = await self._lot(target.chance)
        self._topology.moved_slots.update(slots)
        for slot in slots:
            await self._topology.cluster.migrate(range(slot, slot + 1), to)
        yield

    @asynccontextmanager
    async def ledger_moved(self, target: Target) -> AsyncIterator[None]:
        """Carry the slot of a ledger's own name: all of its primary's keys have another ledger then."""
        topology, cluster = self._topology, self._topology.cluster
        source, to = target.chance.sample(await topology.primaries(), 2)
        slot = slot_of(f"{{expiry-bridge:0:{await cluster.number(source)}}}")
        topology.moved_slots.add(slot)
        changed = topology.upheaval(topology.group(source), topology.group(to))
        with changed, topology.book.unsettled(now_ms() - LATE_MS):
            await cluster.open_slot(slot, to)
            await asyncio.sleep(target.chance.uniform(0, HALF_WAY))
            await cluster.move_keys(slot, to)
            await cluster.close_slot(slot, to)
            yield
            await topology.adopted()

    @asynccontextmanager
    async def node_added(self, target: Target) -> AsyncIterator[None]:
        """Add a primary, give it slots, and take all of it back."""
        topology, cluster = self._topology, self._topology.cluster
        slots, _ = await self._lot(target.chance)
        node = await cluster.add_node()
        with topology.upheaval(topology.group(node)):  # with its slots, its ledger comes and goes
            if slots:
                source = await cluster.owner_of_slot(slots[0])
                await self._carry(slots, node, target.chance)
            yield
            if slots:
                await self._carry(slots[1:], source, target.chance)
                async with topology.still:  # nobody listens there any more when its last slot is on its way
                    await cluster.move_slot(slots[0], source)
                await topology.adopted()
        await cluster.remove(node)
        await cluster.settled()

    def all(self) -> list[Fault]:
        """All of them."""
        found = [
            Fault("slots moved", REDIS, self.moved, seconds=(0, 1), weight=12),
            Fault("slot of a ledger moved", REDIS, self.ledger_moved, seconds=(0, 1), weight=12),
            Fault("node added", REDIS, self.node_added, seconds=(0, 4), weight=6),
        ]
        if isinstance(self._topology.cluster.nodes[0], ValkeyServer):
            found.append(Fault("slots migrated", REDIS, self.migrated, seconds=(0, 1), weight=12))
        return found
