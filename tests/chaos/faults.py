"""What can be done to a deployment, and how it is fixed. What is done to primaries with replicas: `failovers.py`."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from signal import SIGTERM

from redis.asyncio import Redis

from bridge.commands.embedded import Server
from tests.chaos.topology import Topology
from tests.support.deployments.interruptions import FLAGS, NEEDED, overflow
from tests.support.deployments.scene import Scene
from tests.support.proxy import Direction, Proxy, Where, everybody, is_commander, is_subscriber
from tests.support.servers import PATIENCE, Bridge, start, wait_until

DEFAULT_LIMIT = "32mb 8mb 60"
"""Redis's default limit of a subscriber's output buffer."""

MUTED = (6.0, 9.0)
"""Seconds: longer than a bridge waits for a mark, and no other one starts meanwhile, which would switch them on again.
What a shorter time does is tried in test_muted_moment.py.
"""


@dataclass
class Target:
    """Who is struck."""

    topology: Topology[Scene]
    chance: random.Random
    ends: list[str] = field(default_factory=list)
    """Ends of bridges that nobody had asked for, and those that were no good."""

    @property
    def scene(self) -> Scene:
        """With its bridges and its broker."""
        return self.topology.scene

    async def redis(self) -> Redis:
        """A client of a primary."""
        return self.topology.client(self.chance.choice(await self.topology.primaries()))


Work = Callable[["Target"], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """What is done to whom: `work` strikes when it is entered, and fixes when it is left."""

    name: str
    victims: frozenset[str]
    work: Work
    weight: int = 4
    seconds: tuple[float, float] = (0.0, 8.0)
    """How long it lasts: often longer than a bridge waits for an answer (5 s)."""


def bridge_name(number: int) -> str:
    """As a victim."""
    return f"bridge {number}"


# Processes.


async def lives(bridge: Bridge) -> bool:
    """Whether its event loop turns."""
    try:
        return (await bridge.get("/livez"))[0] == HTTPStatus.OK
    except OSError:
        return False


Find = Callable[[Target], Server]


def redis_server(target: Target) -> Server:
    """Redis."""
    return target.scene.redis_server


def broker(target: Target) -> Server:
    """NATS or Kafka."""
    return target.scene.broker


@asynccontextmanager
async def killed(find: Find, target: Target) -> AsyncIterator[None]:
    """SIGKILL."""
    find(target).kill()
    yield
    await start(find(target))


@asynccontextmanager
async def frozen(find: Find, target: Target) -> AsyncIterator[None]:
    """SIGSTOP, SIGCONT."""
    find(target).pause()
    yield
    find(target).resume()


@asynccontextmanager
async def bridge_killed(number: int, target: Target) -> AsyncIterator[None]:
    """SIGKILL."""
    bridge = target.scene.bridges[number]
    bridge.kill()
    yield
    bridge.start()


@asynccontextmanager
async def bridge_stopped(number: int, target: Target) -> AsyncIterator[None]:
    """SIGTERM: it drains; what it cannot do in its time is left to the next one."""
    bridge = target.scene.bridges[number]
    await wait_until(partial(lives, bridge), bridge.log, PATIENCE)  # before, Python itself would answer the signal
    bridge.send_signal(SIGTERM)
    yield
    status = await bridge.exited(PATIENCE)
    if status not in {0, 1}:
        target.ends.append(f"bridge {number} ended with status {status} after SIGTERM")
    bridge.start()


@asynccontextmanager
async def bridge_frozen(number: int, target: Target) -> AsyncIterator[None]:
    """SIGSTOP, SIGCONT."""
    bridge = target.scene.bridges[number]
    bridge.pause()
    yield
    bridge.resume()


# Connections.


Link = Callable[[Target], Proxy]


def redis_link(target: Target) -> Proxy:
    """The bridges' connections to Redis."""
    return target.scene.redis_link


def broker_link(target: Target) -> Proxy:
    """Their connections to the broker."""
    return target.scene.broker_link


@asynccontextmanager
async def cut(link: Link, where: Where, target: Target) -> AsyncIterator[None]:
    """Reset connections."""
    link(target).cut(where)
    yield


@asynccontextmanager
async def refused(link: Link, _: Where, target: Target) -> AsyncIterator[None]:
    """Reset all connections, and take no new ones."""
    link(target).refuse()
    link(target).cut()
    yield
    await link(target).accept()


@asynccontextmanager
async def stalled(direction: Direction, link: Link, where: Where, target: Target) -> AsyncIterator[None]:
    """Let nothing through, one way."""
    held = link(target).stall(direction, where)
    yield
    held.release()


@asynccontextmanager
async def delayed(link: Link, _: Where, target: Target) -> AsyncIterator[None]:
    """Make everything late."""
    link(target).delay = target.chance.uniform(0.01, 0.3)
    yield
    link(target).delay = 0.0


# What somebody does to Redis.


@asynccontextmanager
async def overflowed(target: Target) -> AsyncIterator[None]:
    """Fill the output buffer of whoever subscribes."""
    await overflow(target.scene)
    yield
    await target.scene.redis.config_set("client-output-buffer-limit", f"pubsub {DEFAULT_LIMIT}")


@asynccontextmanager
async def muted(target: Target) -> AsyncIterator[None]:
    """Empty notify-keyspace-events; a bridge may set it again before we do."""
    redis = await target.redis()
    await redis.config_set(FLAGS, "")
    yield
    await redis.config_set(FLAGS, NEEDED)


@asynccontextmanager
async def dropped(kind: str, target: Target) -> AsyncIterator[None]:
    """CLIENT KILL, of the bridges' own connections."""
    redis = await target.redis()
    for client in await redis.client_list(_type=kind):
        if client["name"] == "expiry-bridge":
            await redis.client_kill_filter(_id=client["id"])
    yield


@asynccontextmanager
async def scripts_flushed(target: Target) -> AsyncIterator[None]:
    """SCRIPT FLUSH."""
    await (await target.redis()).script_flush()
    yield


@asynccontextmanager
async def writes_paused(target: Target) -> AsyncIterator[None]:
    """CLIENT PAUSE WRITE: nothing expires meanwhile."""
    await target.scene.redis.client_pause(int(target.chance.uniform(100, 7_000)), all=False)
    yield
    await target.scene.redis.client_unpause()


REDIS, REDIS_LINK, BROKER, BROKER_LINK = (frozenset([who]) for who in ("redis", "redis link", "broker", "broker link"))
BRIDGES = frozenset(map(bridge_name, range(2)))


def on_all() -> list[Fault]:
    """What can be done whatever Redis is like."""
    found = [
        Fault("notifications switched off", REDIS | REDIS_LINK | BRIDGES, muted, seconds=MUTED),
        Fault("subscriber dropped by redis", REDIS, partial(dropped, "pubsub"), seconds=(0, 0)),
        Fault("commands dropped by redis", REDIS, partial(dropped, "normal"), seconds=(0, 0)),
        Fault("scripts flushed", REDIS, scripts_flushed, seconds=(0, 0)),
        Fault("broker killed", BROKER, partial(killed, broker), seconds=(0, 3), weight=3),
        Fault("broker frozen", BROKER, partial(frozen, broker)),
    ]
    bridge_faults: dict[str, Callable[[int, Target], AbstractAsyncContextManager[None]]] = {
        "killed": bridge_killed,
        "stopped": bridge_stopped,
        "frozen": bridge_frozen,
    }
    for number in range(2):
        for name, work in bridge_faults.items():
            found.append(Fault(f"bridge {name}", frozenset([bridge_name(number)]), partial(work, number)))
    for name, on_link in _LINK_FAULTS.items():
        found.append(Fault(f"link to the broker {name}", BROKER_LINK, partial(on_link, broker_link, everybody), 2))
    return found


_LINK_FAULTS: dict[str, Callable[[Link, Where, Target], AbstractAsyncContextManager[None]]] = {
    "cut": cut,
    "refused": refused,
    "delayed": delayed,
    "stalled on the way there": partial(stalled, Direction.TO_SERVER),
    "stalled on the way back": partial(stalled, Direction.TO_CLIENT),
}


def on_one_redis() -> list[Fault]:
    """What can be done where there is one Redis, behind a proxy, that keeps its data."""
    found = [
        *on_all(),
        Fault("redis killed", REDIS, partial(killed, redis_server), seconds=(0, 2)),
        Fault("redis frozen", REDIS, partial(frozen, redis_server)),
        Fault("output buffer overflowed", REDIS | REDIS_LINK, overflowed, seconds=(0, 1)),
        Fault("writes paused", REDIS, writes_paused),
    ]
    for name, on_link in _LINK_FAULTS.items():
        found.append(Fault(f"link to redis {name}", REDIS_LINK, partial(on_link, redis_link, everybody), 2))
        if on_link not in {refused, delayed}:
            for who, where in {"commands": is_commander, "subscription": is_subscriber}.items():
                work = partial(on_link, redis_link, where)
                found.append(Fault(f"link to redis {name}, of the {who}", REDIS_LINK, work, 2))
    return found
