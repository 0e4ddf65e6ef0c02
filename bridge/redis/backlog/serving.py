"""Which servers a replication stream is read from."""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import SENTINEL, Endpoint

ReplicationInfo = dict[str, object]


async def replication(client: Redis, endpoint: Endpoint) -> ReplicationInfo:
    """What the server says of its replication. Raises NotConnected or Refused."""
    async with conversation(endpoint):
        return cast("ReplicationInfo", await client.info("replication"))


def replicas(info: ReplicationInfo, endpoint: Endpoint) -> Sequence[Endpoint]:
    """The replicas of a primary that are in step, the furthest first. One without a port only reads the stream."""
    found = list[tuple[int, Endpoint]]()
    for number in range(int(str(info.get("connected_slaves", 0)))):
        one = info.get(f"slave{number}")
        if isinstance(one, dict) and one.get("state") == "online" and one.get("port"):
            found.append((int(one.get("offset", 0)), endpoint.at((str(one["ip"]), int(one["port"])))))
    return [server for _, server in sorted(found, key=lambda pair: pair[0], reverse=True)]


async def serving(client: Redis, endpoint: Endpoint) -> Sequence[Endpoint]:
    """The primary itself; behind sentinels only real replicas: they would list us as one, and might fail over to us.

    Raises NotConnected or Refused.
    """
    if endpoint.finder != SENTINEL:
        return [endpoint]
    return replicas(await replication(client, endpoint), endpoint)
