"""The proof at the end of a run: while all is well, keys are announced on time, once, by their notifications.

So they are while the bridge that works is killed, stopped, or cut off, and the others have listened; or while another
session of its own relieves it: no gap opens then, and what Redis counts is what was handled.
"""

import asyncio
import random
from typing import TYPE_CHECKING

from bridge.redis.protocol.audit import Reading
from bridge.redis.protocol.own_keys import Names
from tests.simulation.book import NAMES
from tests.simulation.bridges import Bridge
from tests.simulation.field_proof import FieldProof
from tests.simulation.network import Link
from tests.simulation.redis.server import Session
from tests.simulation.validators import IS_RELIEVED, NO_GAP, ON_TIME

if TYPE_CHECKING:
    from tests.simulation.world import World

PROOF_SECONDS = 1.0
"""Within which a key has to be announced while all is well."""
RELIEF_LOOKS = 40
"""Tenths of a second more until a session is relieved: it looks for that once a second, and then for a mark."""
KEYS = 4
CUT_OFF = 0.3
"""How often the bridge that works is cut off, instead of ending."""
ENOUGH = 1000
"""Notifications that come in a second, and more."""


def works(world: "World", bridge: Bridge, names: Names = NAMES) -> bool:
    """Whether it holds the lease of a shard, and is subscribed: what it says of itself may be some seconds old."""
    process = bridge.process
    assert process is not None
    listens = any(link.process is process for link in _listening(world))
    return listens and world.server.user("HGET", names.lease, "holder") == process.name.encode()


async def prove(world: "World") -> None:
    """Violates what does not hold."""
    world.tell("fate", "proof")
    listening = _listening(world)
    if await _announced(world, "proof", 300, None) and _keep_enough(world) and await _relieved(world):
        holder = next((bridge for bridge in world.bridges if works(world, bridge)), None)
        if holder is not None and _stand_by(world, holder, [link for link in _listening(world) if link in listening]):
            world.tell("fate", "takeover")
            before = _reading(world)
            if not await _announced(world, "takeover", 600, holder):
                world.violate(NO_GAP, f"{holder.name} was killed, stopped, or cut off")
            elif (
                (after := _reading(world))
                and before
                and after.counters[0] - before.counters[0] != (after.heard - before.heard)
            ):
                world.violate(NO_GAP, f"the audit is wrong: {before} and {after}")


def _keep_enough(world: "World") -> bool:
    """Whether no standby forgets anything: where it may keep little, the marks of shards or of fields are too many."""
    plan = world.plan
    return plan.backlog >= ENOUGH or (plan.shards == 1 and plan.fielding is None)


async def _relieved(world: "World") -> bool:
    """As in the proof, while the bridge that works is relieved."""
    holder = next((bridge for bridge in world.bridges if works(world, bridge)), None)
    if holder is None:
        return True
    before = world.server.user("HGET", NAMES.lease, "fence")
    holder.relieve()
    announced = await _announced(world, "relief", 2500, None)
    for _ in range(RELIEF_LOOKS):
        if world.server.user("HGET", NAMES.lease, "fence") != before:
            break
        await asyncio.sleep(0.1)
    if works(world, holder) and world.server.user("HGET", NAMES.lease, "fence") == before:
        world.violate(IS_RELIEVED, f"{holder.name} goes on with the session that it had")
    elif not announced:
        world.violate(IS_RELIEVED, f"{holder.name} was relieved")
    return announced


def _reading(world: "World") -> Reading | None:
    """The last one that is stored of the audit."""
    stored = world.server.user("HGET", NAMES.lease, "audit")
    return Reading.parse(stored.decode()) if isinstance(stored, bytes) else None


def _listening(world: "World") -> list[Link]:
    return [link for link in world.network.links if isinstance(link.peer, Session) and link.peer.channels]


def _stand_by(world: "World", holder: Bridge, listening: list[Link]) -> bool:
    """Whether there are other bridges, and each has listened to all shards for a while, and reaches its broker."""
    others = [bridge for bridge in world.bridges if bridge is not holder]
    return bool(others) and all(
        sum(link.process is bridge.process for link in listening) == world.plan.shards
        and all(reason.startswith("standing by") for reason in bridge.reasons.values())
        for bridge in others
    )


def _cut_off(world: "World", bridge: Bridge) -> None:
    """It loses all its connections, and is there again before a standby looks."""
    assert bridge.process is not None
    world.tell("fate", f"all connections of {bridge.process.name} are cut")
    for link in [link for link in world.network.links if link.process is bridge.process]:
        link.sever()


async def _announced(world: "World", name: str, ttl: int, ending: Bridge | None) -> bool:
    """Set keys, have that bridge end, and look. False, and nothing is proved: a gap has opened."""
    server, stored = world.server, world.broker.stored
    gaps, begun = world.gaps_opened, len(stored)
    keys = [b"user:%b:%d" % (name.encode(), number) for number in range(KEYS)]
    fields = FieldProof(world, name, ttl)
    for key in keys:
        server.user("SET", key, "v", "PX", ttl)
        await asyncio.sleep(0.03)
    deadlines = {key: server.keyspace.databases[0].deadlines.get(key, 0) for key in keys}
    fields.take_back()
    offset = server.clock_ms / 1000 - world.loop.time()
    if ending is not None:
        for _ in range(3):
            server.user("SET", b"other", "v", "PX", 20, database=1)
            await asyncio.sleep(0.03)
        rng = random.Random(world.plan.seed)
        await asyncio.sleep(rng.random() * 0.5)
        if random.Random(f"proof of {world.plan.seed}").random() < CUT_OFF:
            _cut_off(world, ending)
        else:
            rng.choice((ending.kill, ending.stop))()
        if rng.random() < 1 / 2:
            ending.start()  # before any standby asks: it is not to take what they can go on with
    await asyncio.sleep(0.6 + ttl / 1000 + PROOF_SECONDS)
    if world.gaps_opened != gaps:  # records of earlier ones may come as late as now
        world.tell("fate", f"a gap in the {name}")
        return False
    for key in keys:
        said = [message for message in stored[begun:] if message.key == key]
        late = [message for message in said if offset + message.at > deadlines[key] / 1000 + PROOF_SECONDS]
        if not said or late or b'"via":"notification"' not in said[0].body:
            world.violate(ON_TIME, f"{key!r} of {deadlines[key]}: {said}")
    fields.judge(stored[begun:], PROOF_SECONDS, offset, calm=name == "proof")
    return True
