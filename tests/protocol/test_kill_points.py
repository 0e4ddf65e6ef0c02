"""SIGKILL between any two side effects: nothing is lost, nothing is stored twice, whoever dies.

The moment is not left to luck: a proxy holds the frame before which, or the answer after which, somebody is killed: the
bridge (a new one is started, past the proxies; what the dead one had under way arrives late, when the new one is done),
Redis (restarted with its append-only file), or NATS (restarted with its store).
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

import pytest

from bridge.redis.ledger import assembly
from tests.support.brokers.nats_frames import ACK, CREATE, PUBLISH, frame
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import DURABLE, KEYS, PREFIX, SOON_MS, keys, now_ms
from tests.support.kinds import KINDS
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Breakpoint, Direction, Matches, command
from tests.support.redis.commands import DEBUG, lazily
from tests.support.redis.operations import APPEARED, EXPIRED, RESOLVE, batch_with_any
from tests.support.redis.scripts import script
from tests.support.servers import PATIENCE, Bridge, RedisServer, ValkeyServer, wait_until

pytestmark = pytest.mark.unmeasured


class When(Enum):
    """In which part of a bridge's life a moment comes."""

    CONNECTING = auto()
    """It looks for the stream, for the first time of all."""
    RECOVERING = auto()
    """A dead bridge has left a full outbox; other keys are overdue, and half of them gone without anybody's notice."""
    RECORDING = auto()
    """Keys are being set."""
    RUNNING = auto()
    """Keys expire."""


@dataclass(frozen=True)
class Moment:
    """Told by a frame: it is held, or, with HOLD_REPLY, the answer to it is."""

    when: When
    matches: Matches
    action: Action = Action.HOLD
    on_nats: bool = False
    direction: Direction = TO_SERVER
    number: int = 1
    """Which of the frames that match."""
    overdue: bool = False
    """Whether it comes only when a key is past its deadline."""

    def arm(self, deployment: Deployment) -> Breakpoint:
        """Wait for it from now on."""
        seen = 0

        def matches(data: bytes) -> bool:
            nonlocal seen
            due = not self.overdue or any(deadline < now_ms() for _, deadline in deployment.expected.values())
            seen += due and self.matches(data)
            return seen >= self.number

        link = deployment.nats_link if self.on_nats else deployment.redis_link
        return link.break_on(self.direction, matches, self.action)


def around(
    name: str, when: When, matches: Matches, *, on_nats: bool = False, overdue: bool = False
) -> dict[str, Moment]:
    """The moments before the server sees it, and before the bridge sees the answer."""
    before = Moment(when, matches, on_nats=on_nats, overdue=overdue)
    return {
        f"before it {name}": before,
        f"before it knows that it {name}": replace(before, action=Action.HOLD_REPLY),
    }


MOMENTS = {
    **around("creates the stream", When.CONNECTING, CREATE, on_nats=True),
    **around("takes the lease", When.RECOVERING, script("acquire")),
    **around("subscribes", When.RECOVERING, command(b"SUBSCRIBE")),
    **around("reads the outbox", When.RECOVERING, command(b"XRANGE")),
    **around("walks the ledger", When.RECOVERING, script("touch")),
    **around("claims what is gone", When.RECOVERING, batch_with_any(RESOLVE)),
    **around("records", When.RECORDING, batch_with_any(APPEARED)),
    **around("touches", When.RUNNING, script("touch"), overdue=True),
    "before it is notified": Moment(When.RUNNING, frame(b"__:expired", PREFIX.encode()), direction=TO_CLIENT),
    **around("claims", When.RUNNING, batch_with_any(EXPIRED)),
    "before it publishes": Moment(When.RUNNING, PUBLISH, on_nats=True),
    "before it publishes the rest": Moment(When.RUNNING, PUBLISH, on_nats=True, number=KEYS // 2),
    "before the first ack": Moment(When.RUNNING, ACK, on_nats=True, direction=TO_CLIENT),
    "before the other acks": Moment(When.RUNNING, ACK, on_nats=True, direction=TO_CLIENT, number=KEYS // 2),
    **around("settles", When.RUNNING, script("settle")),
}


# The tests.


def victims(moment: Moment) -> Iterator[tuple[type[RedisServer], str]]:
    """Who is killed then, each on one of the kinds of Redis. NATS only where it matters, and there Redis does not.

    Redis only where it has done something: a request that it never saw is one that a connection has lost, and the
    simulation loses those at any moment.
    """
    number = [*MOMENTS.values()].index(moment)
    yield KINDS[number // 2 % 2], "bridge"
    if moment.on_nats or moment.action is Action.HOLD_REPLY or moment.direction is TO_CLIENT:
        yield KINDS[1 - number // 2 % 2], "redis"
    if moment.on_nats or moment.matches is MOMENTS["before it settles"].matches:
        yield ValkeyServer, "nats"


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_whoever_is_killed_at_that_moment_each_expiration_is_stored_once(moment: Moment) -> None:
    async with asyncio.TaskGroup() as side_by_side:
        for kind, victim in victims(moment):
            side_by_side.create_task(killed(kind, victim, moment), name=f"{victim} killed, with {kind.distribution}")


async def killed(kind: type[RedisServer], victim: str, moment: Moment) -> None:
    """Bring a bridge to the moment, kill the victim, look at what is stored."""
    try:
        async with Deployment.of(kind, redis={**DURABLE, **DEBUG}) as deployment:
            await lazily(deployment.redis)  # so that keys expire only when the bridge touches them
            bridge, met = await brought_to(moment, deployment)
            await met.reached(PATIENCE)
            bridge = await kill(victim, deployment, bridge)
            if moment.when is When.RECORDING:
                await bridge.ready(PATIENCE)
                await deployment.recorded()
                deployment.expected.clear()  # they live too long to wait for them
                await deployment.set(keys(KEYS))
            await deployment.delivered()
            await bridge.ready(PATIENCE)
            if victim == "bridge":
                # What the dead one had sent arrives now.
                deployment.flow()
                links = deployment.redis_link, deployment.nats_link
                await wait_until(lambda: not any(link.connections for link in links), "the end of the dead connections")
                await deployment.delivered()
    except Exception as error:
        error.add_note(f"{victim} was killed, with {kind.distribution}")
        raise


async def brought_to(moment: Moment, deployment: Deployment) -> tuple[Bridge, Breakpoint]:
    """A bridge that is on its way to the moment."""
    first, second = keys(KEYS), ["share:0", *keys(KEYS, start=KEYS)]
    for name in assembly.names():
        await deployment.redis.script_load(assembly.script(name))  # as if run before: the first call is no rehearsal
    match moment.when:
        case When.CONNECTING:
            met = moment.arm(deployment)
            bridge = await deployment.start_bridge()
            await deployment.set(first)
        case When.RECOVERING:
            dead = await deployment.ready_bridge()
            deployment.nats_link.break_on(TO_SERVER, PUBLISH, Action.HOLD)
            await deployment.set(first)
            await deployment.claimed(KEYS)
            dead.kill()
            deployment.nats_link.cut()
            await deployment.expire_lease()
            await deployment.set(second)
            await deployment.past(second)
            assert not await deployment.redis.exists(*second[::2])  # gone now, and nobody has heard of it
            met = moment.arm(deployment)
            bridge = await deployment.start_bridge()
        case When.RECORDING:
            bridge = await deployment.ready_bridge()
            met = moment.arm(deployment)
            await deployment.set(first, 600_000, known=False)
        case When.RUNNING:
            bridge = await deployment.ready_bridge()
            met = moment.arm(deployment)
            await deployment.set(first)
            await deployment.set(second[1:], SOON_MS + 200)
    return bridge, met


async def kill(victim: str, deployment: Deployment, bridge: Bridge) -> Bridge:
    """Kill the victim. Returns the bridge that has to deliver now."""
    match victim:
        case "bridge":
            bridge.kill()
            await deployment.expire_lease()
            return await deployment.start_bridge(direct=True)
        case "redis":
            deployment.redis_server.kill()
            deployment.redis_link.cut()  # a frame that is held dies with its connection
            deployment.redis_server.start()
        case _:
            deployment.nats_server.kill()
            deployment.nats_link.cut()
            deployment.nats_server.start()
    deployment.flow()
    return bridge
