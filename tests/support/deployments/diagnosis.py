"""What is where when a delivery does not come: for the message of the test that waits in vain.

Each server and each bridge is asked once, for a moment; whatever does not answer is reported as such.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgpack
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.servers import Bridge, RedisServer

SHOWN = 20
"""Keys of which is said where they are."""
GONE = -2
"""How Redis says how long a key lives that is not there."""
SECONDS = 3.0
"""For each server, and for each bridge."""


class Whereabouts:
    """What the servers hold of the bridge's keys, and of some keys of the user's."""

    def __init__(self) -> None:
        self.places = defaultdict[str, list[str]](list)
        """By key: in which ledgers and outboxes it is, and where it lives."""
        self.said: list[str] = []
        """Leases, lengths, and servers that do not answer."""

    async def ask(self, servers: Iterable[RedisServer], keys: Sequence[str]) -> None:
        """Look at all of them. Never raises."""
        for server in servers:
            name = f"{server.name} {server.port}"
            if server.paused or not server.running:
                self.said.append(f"{name}: {'paused' if server.running else 'not running'}")
                continue
            try:
                async with asyncio.timeout(SECONDS), Redis(port=server.port, protocol=2, socket_timeout=None) as client:
                    await self._look(name, client, keys)
            except (RedisError, OSError) as error:
                self.said.append(f"{name}: {type(error).__name__} {error}")

    async def _look(self, name: str, client: Redis, keys: Sequence[str]) -> None:
        role = (await client.info("replication"))["role"]
        if role != "master":
            self.said.append(f"{name}: {role}")
            return
        for own in sorted(cast("list[bytes]", await client.keys("{expiry-bridge:*"))):
            place = f"{own.decode()} of {name}"
            kind = await client.type(own)
            if kind == b"hash":
                self.said.append(f"{place}: {await client.hgetall(own)}")
                continue
            if kind == b"zset":
                members = cast("list[bytes]", await client.zrange(own, 0, -1))
            elif kind == b"stream":
                entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange(own))
                members = [key for _, fields in entries for key in _claimed(fields)]
            else:
                continue
            self.said.append(f"{place}: {len(members)}")
            for member in members:
                self.places[member.decode(errors="replace")].append(f"in {place}")
        for key in keys:
            try:
                left_ms = await client.pttl(key)
            except RedisError:  # another node of a cluster has it
                continue
            if left_ms > GONE:
                self.places[key].append(f"alive at {name} for {left_ms} ms")


def _claimed(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """The keys in an entry of an outbox."""
    return msgpack.unpackb(fields[b"claims"], raw=True)[::3] if b"claims" in fields else []


async def diagnosis(
    missing: Sequence[tuple[str, int]], now_ms: int, servers: Iterable[RedisServer], bridges: Iterable[Bridge]
) -> str:
    """Where each missing expiration (key, deadline) is, and what servers and bridges say."""
    found = Whereabouts()
    shown = missing[:SHOWN]
    await found.ask(servers, [key for key, _ in shown])
    lines = [f"{len(missing)} expirations are not stored"]
    for key, deadline_ms in shown:
        where = ", ".join(found.places[key]) or "nowhere"
        lines.append(f"  {key}, due {(now_ms - deadline_ms) / 1000:.1f} s ago: {where}")
    lines += ["  …"] if len(missing) > len(shown) else []
    lines += found.said
    for bridge in bridges:
        try:
            answer: object = await bridge.get("/readyz") if bridge.running else f"ended with {bridge.returncode}"
        except OSError as error:
            answer = repr(error)
        lines += [f"bridge {bridge.pid}: {answer}", bridge.log()]
    return "\n".join(lines)
