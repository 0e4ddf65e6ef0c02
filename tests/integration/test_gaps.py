"""Whatever interrupts the notifications: it is noticed, announced as a gap with its cause, and nothing in it is lost.

Each fault strikes a bridge that knows of keys; their deadlines pass before it is fixed. Nothing but what the contract
says cannot be had is ever missing: what the ledger or the outbox held when somebody deleted it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

import pytest
from redis.asyncio import Redis

from tests.support.contract import LEASE, LEDGER, OUTBOX
from tests.support.deployments.interruptions import FLAGS, NEEDED, overflow
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import DURABLE, KEYS, LASTING_MS, keys
from tests.support.deployments.telemetry import events, unready
from tests.support.kinds import KINDS
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Where, everybody, is_commander, is_subscriber
from tests.support.redis.scripts import script
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

STRUCK_MS = 800
"""How long keys live whose deadlines are to pass in the gap."""

Step = Callable[[Deployment], Awaitable[None]]


class Harm(Enum):
    """What the fault destroys."""

    NOTHING = auto()
    LEDGER = auto()
    """What expires in the gap is lost; what lives on is found again."""
    EVERYTHING = auto()
    """The users' keys, too."""


async def nothing(_: Deployment) -> None:
    """Nothing has to be fixed."""


@dataclass(frozen=True)
class Fault:
    """What is done to a deployment, how it is fixed, and the cause (a regular expression) that the bridge names."""

    strike: Step
    cause: str
    remedy: Step = nothing
    harm: Harm = Harm.NOTHING
    settings: Mapping[str, str] = field(default_factory=dict)


# What strikes.


def on_each_link(strike: Callable[[Where, Deployment], Awaitable[None]], cause: str, remedy: Step) -> dict[str, Fault]:
    """The same fault for the commands, for the notifications, and for both."""
    links = {"commands": is_commander, "notifications": is_subscriber, "both": everybody}
    return {name: Fault(partial(strike, where), cause, remedy) for name, where in links.items()}


async def cut(where: Where, deployment: Deployment) -> None:
    """Reset connections: that of the commands while a reply is awaited, else it would not be missed."""
    if where is not is_subscriber:
        await deployment.redis_link.break_on(TO_SERVER, script("touch"), Action.CUT_REPLY).reached(PATIENCE)
    deployment.redis_link.cut(where)


async def stall(where: Where, deployment: Deployment) -> None:
    """Let nothing come back."""
    deployment.redis_link.stall(TO_CLIENT, where)


async def refuse(where: Where, deployment: Deployment) -> None:
    """Reset connections, and take no new ones."""
    deployment.redis_link.refuse()
    deployment.redis_link.cut(where)


async def flow(deployment: Deployment) -> None:
    """Everything goes through again."""
    deployment.flow()


async def accept(deployment: Deployment) -> None:
    """New connections are taken again."""
    await deployment.redis_link.accept()


async def kill_pubsub(deployment: Deployment) -> None:
    """Close all subscribers' connections."""
    assert await deployment.redis.client_kill_filter(_type="pubsub") == 1


async def freeze(deployment: Deployment) -> None:
    """SIGSTOP Redis."""
    deployment.redis_server.pause()


async def thaw(deployment: Deployment) -> None:
    """SIGCONT Redis."""
    deployment.redis_server.resume()


async def kill(deployment: Deployment) -> None:
    """SIGKILL Redis."""
    deployment.redis_server.kill()


async def restart(deployment: Deployment) -> None:
    """Start it again; it has its data, and not the flags that were set while it ran."""
    deployment.redis_server.start()


async def mute(deployment: Deployment) -> None:
    """Switch the notifications off."""
    await deployment.redis.config_set(FLAGS, "")


async def unmute(deployment: Deployment) -> None:
    """Switch them on, as the operator would whom the bridge has told what is missing."""
    await deployment.redis.config_set(FLAGS, NEEDED)


def runs(*words: str) -> Step:
    """Run one command."""

    async def run(deployment: Deployment) -> None:
        assert await _execute(deployment.redis, *words)

    return run


async def _execute(redis: Redis, *words: str) -> object:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


LOST = "connection lost|closed the connection|[Cc]onnection (reset|closed|is refused)|Error (while|UNKNOWN|32|104)"
SILENT = "said nothing|Timeout|no answer|did not come back"
MUTE = f"{FLAGS}|mute"
GONE = "the bridge's own key {} was deleted, evicted or moved away|lease lost"

FAULTS: dict[str, dict[str, Fault]] = {
    "its link to Redis is cut": on_each_link(cut, LOST, nothing),
    "its link to Redis stands still": on_each_link(stall, SILENT, flow),
    "its link to Redis is refused": on_each_link(refuse, LOST, accept),
    "Redis drops it": {
        "CLIENT KILL": Fault(kill_pubsub, LOST),
        "output buffer limit": Fault(overflow, LOST),
    },
    "Redis stands still or dies": {
        "SIGSTOP": Fault(freeze, f"{SILENT}|{LOST}", thaw),
        "SIGKILL": Fault(kill, LOST, restart),
    },
    "the notifications are switched off": {
        "configure": Fault(mute, MUTE),
        "verify": Fault(mute, MUTE, unmute, settings={"BRIDGE_REDIS_NOTIFICATIONS": "verify"}),
    },
    "its own keys are deleted": {
        "lease": Fault(runs("DEL", LEASE), GONE.format("lease")),
        "deadlines": Fault(runs("DEL", LEDGER), GONE.format("deadlines"), harm=Harm.LEDGER),
        "outbox": Fault(runs("DEL", OUTBOX), GONE.format("outbox")),
    },
    "its own keys are renamed": {
        "lease": Fault(runs("RENAME", LEASE, "elsewhere"), GONE.format("lease")),
        "deadlines": Fault(runs("RENAME", LEDGER, "elsewhere"), GONE.format("deadlines"), harm=Harm.LEDGER),
        "outbox": Fault(runs("RENAME", OUTBOX, "elsewhere"), GONE.format("outbox")),
    },
    "everything is flushed": {
        "FLUSHALL": Fault(runs("FLUSHALL"), "the lease was gone", harm=Harm.EVERYTHING),
        "FLUSHDB": Fault(runs("FLUSHDB"), "the lease was gone", harm=Harm.EVERYTHING),
    },
}


# The tests.


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_the_gap_is_announced_and_closed_and_nothing_in_it_is_lost_when(faults: Mapping[str, Fault]) -> None:
    all_ready = asyncio.Barrier(len(faults) * len(KINDS))
    async with asyncio.TaskGroup() as side_by_side:
        for kind in KINDS:
            for name, fault in faults.items():
                side_by_side.create_task(struck(kind, name, fault, all_ready))


async def struck(kind: type[RedisServer], name: str, fault: Fault, all_ready: asyncio.Barrier) -> None:
    """Strike a bridge of its own."""
    flags = {FLAGS: NEEDED} if fault.settings else {FLAGS: '""'}
    try:
        async with Deployment.of(kind, redis={**DURABLE, **flags}, settings=fault.settings) as deployment:
            bridge = await deployment.ready_bridge()
            await deployment.set(keys(1))
            await deployment.delivered()  # so that all of its own keys are there
            await all_ready.wait()
            await strike(deployment, bridge, fault)
            assert bridge.running
    except Exception as error:
        error.add_note(f"{name}, with {kind.distribution}")
        raise


async def strike(deployment: Deployment, bridge: Bridge, fault: Fault) -> None:
    """Strike it, let deadlines pass, fix it, look at all that it did and said."""
    expiring, lasting, opened = keys(KEYS), keys(KEYS, start=KEYS), len(events(bridge, "gap.opened"))
    if fault.harm is not Harm.EVERYTHING:
        await deployment.set(lasting, LASTING_MS)
    if fault.harm is Harm.NOTHING:
        await deployment.set(expiring, STRUCK_MS)
    # It stays unready until we have seen it, and until the deadlines are past.
    next_epoch = deployment.redis_link.break_on(TO_SERVER, script("acquire"), Action.HOLD)
    await fault.strike(deployment)
    assert "subscription" in await unready(bridge)
    if fault.harm is Harm.EVERYTHING:
        await deployment.set(lasting, LASTING_MS, known=False)
    await deployment.past(set(expiring))
    await fault.remedy(deployment)
    next_epoch.release()

    await bridge.ready(PATIENCE)
    await wait_until(lambda: closed(bridge), bridge.log, PATIENCE)
    await deployment.recorded()  # what lives on is known (again)
    await deployment.set(lasting)
    await deployment.delivered()
    gaps = events(bridge, "gap.opened")[opened:]
    assert gaps, "no gap was announced"
    assert re.search(fault.cause, gaps[-1]["cause"]), gaps[-1]["cause"]


def closed(bridge: Bridge) -> bool:
    """Whether the last gap is."""
    return bool(events(bridge, "gap.opened", "gap.closed")[-1]["event"] == "gap.closed")


async def test_an_outbox_that_is_deleted_with_what_it_held_is_a_gap_and_the_bridge_goes_on(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        deployment.nats_link.stall(TO_SERVER)
        waiting: Sequence[str] = await deployment.set(keys(KEYS))
        await deployment.claimed(KEYS)
        await deployment.redis.delete(OUTBOX)
        await wait_until(lambda: len(events(bridge, "gap.opened")) > 1 and closed(bridge), bridge.log, PATIENCE)
        assert re.search(GONE.format("outbox"), events(bridge, "gap.opened")[-1]["cause"])
        deployment.excuse(waiting)  # it may have read them before
        deployment.flow()
        await deployment.set(keys(KEYS, start=KEYS))
        await deployment.delivered()
        await bridge.ready(PATIENCE)

        async def is_settled() -> bool:
            return await deployment.redis.hget(LEASE, "depth") == "0"

        await wait_until(is_settled, "entries to be settled", PATIENCE)


async def test_scripts_that_are_flushed_are_no_gap(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        for start in range(0, 3 * KEYS, KEYS):
            await deployment.redis.script_flush()
            await deployment.set(keys(KEYS, start))
        await deployment.redis.script_flush()
        await deployment.delivered()
        await bridge.ready(PATIENCE)
        assert len(events(bridge, "gap.opened")) == 1
