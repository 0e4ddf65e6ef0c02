"""The proof at the end of a run: while all is well, keys are announced on time, once, by their notifications.

So they are while the bridge that works is killed, or stopped, and the others have listened: no gap opens then, and what
Redis counts is what was handled.
"""

import asyncio
import random
from typing import TYPE_CHECKING

from bridge.redis.protocol.audit import Reading
from tests.simulation.book import NAMES
from tests.simulation.bridges import Bridge
from tests.simulation.network import Link
from tests.simulation.redis.server import Session
from tests.simulation.validators import NO_GAP, ON_TIME

if TYPE_CHECKING:
    from tests.simulation.world import World

PROOF_SECONDS = 1.0
"""Within which a key has to be announced while all is well."""
KEYS = 4


def works(world: "World", bridge: Bridge) -> bool:
    """Whether it holds the lease, and is subscribed: what it says of itself may be some seconds old."""
    process = bridge.process
    assert process is not None
    listens = any(link.process is process for link in _listening(world))
    return listens and world.server.user("HGET", NAMES.lease, "holder") == process.name.encode()


async def prove(world: "World") -> None:
    """Violates what does not hold."""
    world.tell("fate", "proof")
    listening = _listening(world)
    if await _announced(world, "proof", 300, None):
        holder = next((bridge for bridge in world.bridges if works(world, bridge)), None)
        if holder is not None and _stand_by(world, holder, [link for link in _listening(world) if link in listening]):
            world.tell("fate", "takeover")
            before = _reading(world)
            if not await _announced(world, "takeover", 600, holder):
                world.violate(NO_GAP, f"{holder.name} was killed, or stopped")
            elif (
                (after := _reading(world))
                and before
                and after.counters[0] - before.counters[0] != (after.heard - before.heard)
            ):
                world.violate(NO_GAP, f"the audit is wrong: {before} and {after}")


def _reading(world: "World") -> Reading | None:
    """The last one that is stored of the audit."""
    stored = world.server.user("HGET", NAMES.lease, "audit")
    return Reading.parse(stored.decode()) if isinstance(stored, bytes) else None


def _listening(world: "World") -> list[Link]:
    return [link for link in world.network.links if isinstance(link.peer, Session) and link.peer.channels]


def _stand_by(world: "World", holder: Bridge, listening: list[Link]) -> bool:
    """Whether there are other bridges, and each has listened for a while, and reaches its broker."""
    others = [bridge for bridge in world.bridges if bridge is not holder]
    return bool(others) and all(
        any(link.process is bridge.process for link in listening)
        and all(reason.startswith("standing by") for reason in bridge.reasons.values())
        for bridge in others
    )


async def _announced(world: "World", name: str, ttl: int, ending: Bridge | None) -> bool:
    """Set keys, have that bridge end, and look. False, and nothing is proved: a gap has opened."""
    server, stored = world.server, world.broker.stored
    gaps, begun = sum(message.gap for message in stored), len(stored)
    keys = [b"user:%b:%d" % (name.encode(), number) for number in range(KEYS)]
    for key in keys:
        server.user("SET", key, "v", "PX", ttl)
        await asyncio.sleep(0.03)
    deadlines = {key: server.keyspace.databases[0].deadlines.get(key, 0) for key in keys}
    offset = server.clock_ms / 1000 - world.loop.time()
    if ending is not None:
        for _ in range(3):
            server.user("SET", b"other", "v", "PX", 20, database=1)
            await asyncio.sleep(0.03)
        rng = random.Random(world.plan.seed)
        await asyncio.sleep(rng.random() * 0.5)
        rng.choice((ending.kill, ending.stop))()
    await asyncio.sleep(0.6 + ttl / 1000 + PROOF_SECONDS)
    if sum(message.gap for message in stored) != gaps:
        world.tell("fate", f"a gap in the {name}")
        return False
    for key in keys:
        said = [message for message in stored[begun:] if message.key == key]
        late = [message for message in said if offset + message.at > deadlines[key] / 1000 + PROOF_SECONDS]
        if not said or late or b'"via":"notification"' not in said[0].body:
            world.violate(ON_TIME, f"{key!r} of {deadlines[key]}: {said}")
    return True
