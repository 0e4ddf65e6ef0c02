"""What takeovers cost: bridges are killed, or replaced, one after the other, while keys that live for moments expire.

    python -m tests.chaos.takeovers kills 20       two bridges; the one that works is killed, on three servers
    python -m tests.chaos.takeovers rolling 300    a bridge is replaced every five seconds, for so long, on each of four
    python -m tests.chaos.takeovers away 10        one bridge, killed, and away for some seconds; the gap is filled

Each line is a deployment of its own; below it, what a bridge said of gaps, and of unexpected ends. A further
word chooses a server, or a topology.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.support.contract import LEASE
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.deployments.sharded import SETTINGS
from tests.support.deployments.short_lives import Writer, at_work
from tests.support.deployments.telemetry import events
from tests.support.servers import PATIENCE, Bridge, Redis8Server, RedisServer, ValkeyServer, wait_until

KINDS = (RedisServer, Redis8Server, ValkeyServer)
EACH_SECONDS = 5.0
"""Between two bridges that are replaced."""
AWAY_SECONDS = (2.0, 6.0)
SETTLED_SECONDS = 20.0
"""Within which all is announced that ever is."""
BACKLOG = {"BRIDGE_REDIS_BACKLOG": "keep"}
UNLIKE, ALIKE = {"lazyfree-lazy-expire": "yes"}, {"lazyfree-lazy-expire": "no"}
"""Whether an expiration looks like what the writer does, in the replication stream: it uses DEL."""


@dataclass
class Figures:
    """Of one run."""

    ends: int = 0
    took_ms: list[float] = field(default_factory=list)
    """From the end of a bridge to each takeover that followed."""

    async def end(self, deployment: Deployment, bridge: Bridge, *, kill: bool) -> None:
        """End that one; return when others have taken over what it held."""
        held = [shard for shard in await shards(bridge) if shard["held"]]
        others = [other for other in deployment.bridges if other is not bridge and other.running]
        before = len(promoted(others))
        at, self.ends = time.time(), self.ends + 1
        if kill:
            bridge.kill()
        else:
            assert await bridge.stop(PATIENCE) == 0, bridge.log()
        await wait_until(lambda: len(promoted(others)) >= before + len(held), "takeovers", PATIENCE)
        self.took_ms += [(moment(line) - at) * 1000 for line in promoted(others) if moment(line) >= at]

    def __str__(self) -> str:
        took = sorted(self.took_ms)
        p50, p99 = (took[min(int(len(took) * share), len(took) - 1)] if took else 0.0 for share in (0.5, 0.99))
        most = took[-1] if took else 0.0
        return f"{self.ends} ends, {len(took)} takeovers: p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {most:.0f} ms"


def promoted(bridges: Sequence[Bridge]) -> list[dict[str, Any]]:
    """What their logs say of takeovers."""
    return [line for bridge in bridges for line in events(bridge, "standby.promoted")]


def moment(line: Mapping[str, Any]) -> float:
    """When it was logged."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


async def shards(bridge: Bridge) -> list[dict[str, Any]]:
    """What a bridge says of each ledger."""
    found: list[dict[str, Any]] = json.loads((await bridge.get("/status.json"))[1])["shards"]
    return found


Open = Callable[[type[RedisServer]], AbstractAsyncContextManager[Deployment]]


async def settled(deployment: Deployment) -> None:
    """Return when each ledger has a holder, and every other bridge that runs could take it over without a gap."""
    last: object = None

    async def are_settled() -> bool:
        nonlocal last
        running = [bridge for bridge in deployment.bridges if bridge.running]
        try:
            last = views = [await shards(bridge) for bridge in running]
        except OSError:
            return False
        numbers = {shard["shard"] for view in views for shard in view}
        held = {shard["shard"] for view in views for shard in view if shard["held"] and shard["subscribed"]}
        ready = all(shard["held"] or shard["standby_hot"] for view in views for shard in view)
        return bool(numbers) and held == numbers and all(len(view) == len(numbers) for view in views) and ready

    await wait_until(are_settled, lambda: f"standbys; at the last look, {last}", PATIENCE)


@asynccontextmanager
async def playing(deployment: Deployment, bridges: int) -> AsyncIterator[tuple[Figures, Writer]]:
    """That many bridges are at work, and keys expire. In the end all is stored, once; prints the figures."""
    for _ in range(bridges):
        await deployment.start_bridge(direct=True)
        await settled(deployment)
    figures = Figures()
    async with at_work(deployment) as writer:
        yield figures, writer
    await all_announced(deployment, writer)
    stored = Counter(message.key for message in await deployment.stored() or ())
    lost = writer.deadlines.keys() - stored.keys()
    twice = sum(times > 1 for times in stored.values())
    false = len(stored.keys() & writer.deleted)
    records = await deployment.gaps()
    gaps = [gap for gap in records if gap["cause"] != "start" or "filled" in gap]  # each process begins with a start
    filled, excess = (sum(gap.get(name, 0) for gap in gaps) for name in ("filled", "excess"))
    missed = sum(gap["missed"] or 0 for gap in gaps)
    print(  # noqa: T201 - what it is for
        f"{figures}; {writer.expired} expired: {len(lost)} lost, {false} false, {twice} twice;"
        f" {len(records) - len(gaps)} gap records of the start, {len(gaps)} others:"
        f" {filled} filled, {excess} in excess, {missed} missed"
    )
    for bridge in deployment.bridges:
        for line in events(bridge, "gap.opened", "gap.not_filled", "epoch.ended", "bridge.failed"):
            if line["event"] != "epoch.ended" or line["ending"] not in {"shutdown", "handed_over"}:
                print(f"  {line}")  # noqa: T201


async def all_announced(deployment: Deployment, writer: Writer) -> None:
    """Return when all keys are announced, or some seconds after those that ever will be."""

    async def are_announced() -> bool:
        return writer.deadlines.keys() <= {message.key for message in await deployment.stored() or ()}

    with suppress(TimeoutError):
        await wait_until(are_announced, "what has expired", SETTLED_SECONDS)


async def kills(kind: type[RedisServer], count: int) -> None:
    """Two bridges; the one that works is killed, and another one started."""
    print(f"{kind.distribution}, kill -9: ", end="", flush=True)  # noqa: T201
    async with Deployment.of(kind) as deployment, playing(deployment, 2) as (figures, writer):
        for _ in range(count):
            working = [bridge for bridge in deployment.bridges if bridge.running and (await shards(bridge))[0]["held"]]
            await figures.end(deployment, working[0], kill=True)
            await writer.goes_on()
            await deployment.start_bridge(direct=True)
            await settled(deployment)
            await asyncio.sleep(random.random())


async def rolling(name: str, seconds: float) -> None:
    """Two bridges; every five seconds a third one starts, and the oldest one ends."""
    print(f"{name}, rolling restart: ", end="", flush=True)  # noqa: T201
    async with TOPOLOGIES[name](RedisServer) as deployment, playing(deployment, 2) as (figures, _):
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            due = time.monotonic() + EACH_SECONDS
            await deployment.start_bridge(direct=True)
            await settled(deployment)
            oldest = next(bridge for bridge in deployment.bridges if bridge.running)
            await figures.end(deployment, oldest, kill=False)
            await settled(deployment)
            await asyncio.sleep(max(due - time.monotonic(), 0))


async def away(kind: type[RedisServer], redis: Mapping[str, str], count: int) -> None:
    """One bridge, killed, and another one started some seconds later."""
    print(f"{kind.distribution}, {redis}, away: ", end="", flush=True)  # noqa: T201
    chosen = Deployment.of(kind, redis=redis, settings=BACKLOG)
    async with chosen as deployment, playing(deployment, 1) as (figures, writer):
        for _ in range(count):
            await anchored(deployment)
            await writer.goes_on()
            deployment.bridges[-1].kill()
            figures.ends += 1
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))
            await deployment.start_bridge(direct=True)
            await settled(deployment)


async def anchored(deployment: Deployment) -> None:
    """Return when a gap that begins now can be filled."""

    async def is_anchored() -> bool:
        place, is_open = await deployment.redis.hmget(LEASE, "place", "open")
        stream = await deployment.redis.info("replication")
        return bool(stream["repl_backlog_active"]) and is_open == "0" and stream["master_replid"] in str(place)

    await wait_until(is_anchored, "a place with an anchor", PATIENCE)


TOPOLOGIES: Mapping[str, Open] = {
    "single": Deployment.of,
    "shards": lambda kind: Deployment.of(kind, settings=SETTINGS),
    "sentinel": SentinelDeployment.with_sentinels,
    "cluster": ClusterDeployment.with_cluster,
}


async def main(what: str, much: float, only: str = "") -> None:
    """See the module."""
    if what == "kills":
        for kind in KINDS:
            if only in kind.distribution:
                await kills(kind, int(much))
    elif what == "rolling":
        for name in TOPOLOGIES:
            if only in name:
                await rolling(name, much)
    else:
        for kind in KINDS:
            for redis in (UNLIKE, ALIKE):
                if only in kind.distribution:
                    await away(kind, redis, int(much))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:]))
