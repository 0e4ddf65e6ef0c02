"""What a Redis server must be for an epoch to begin: version, role; and what it says of itself.

`inspect` finds out; `Refused` says what is wrong and how to fix it. The `check` command builds on the same findings.
"""

import re
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.errors import Refused
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.errors import is_cluster_node, is_replica

MIN_REDIS = (7, 0)
"""PEXPIRETIME came with Redis 7.0."""
MIN_VALKEY = (7, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself."""

    product: str
    """`Redis` or `Valkey`."""
    version: str
    role: str
    run_id: str
    clustered: bool = False
    """Whether it is a node of a cluster."""
    eviction: str = ""
    """Its `maxmemory-policy`; empty where it does not say."""

    @property
    def supported(self) -> bool:
        """Whether the bridge can work with this version."""
        least = MIN_VALKEY if self.product == "Valkey" else MIN_REDIS
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        return numbers >= least

    @property
    def primary(self) -> bool:
        """Whether it takes writes and expires keys by itself."""
        return self.role == "master"

    @property
    def evicts_all(self) -> bool:
        """Whether it may evict keys without a TTL, the bridge's own among them."""
        return self.eviction.startswith("allkeys")


async def inspect(client: Redis, endpoint: Endpoint) -> Server:
    """Ask the server what it is."""
    async with conversation(endpoint):
        info = dict[str, object]()
        for section in ("server", "replication", "memory"):  # one command for all is an error before Redis 7
            info |= cast("dict[str, object]", await client.info(section))
    valkey = info.get("valkey_version")
    return Server(
        product="Valkey" if valkey else "Redis",
        version=str(valkey or info.get("redis_version", "0")),
        role=str(info.get("role", "unknown")),
        run_id=str(info.get("run_id", "")),
        clustered="cluster" in {info.get("redis_mode"), info.get("server_mode")},  # the latter is Valkey's word
        eviction=str(info.get("maxmemory_policy", "")),
    )


def require(server: Server, endpoint: Endpoint) -> None:
    """Raise unless the bridge can work with this server: Refused, or NotConnected where it may be able to later."""
    if not server.supported:
        raise Refused(
            f"Redis at {endpoint} is {server.product} {server.version}",
            f"the bridge needs Redis {_text(MIN_REDIS)} or Valkey {_text(MIN_VALKEY)}, or newer"
            " (it reads deadlines with PEXPIRETIME)",
        )
    if server.clustered and endpoint.finder != CLUSTER:
        raise is_cluster_node(endpoint)
    if not server.primary:
        raise is_replica(endpoint, f" (role {server.role})")


async def shards_of(client: Redis, endpoint: Endpoint, names: Names) -> int:
    """How many shards the ledger has: 1 where no bridge has ever said so."""
    async with conversation(endpoint):
        said = await client.get(names.shards)
    return int(said) if said and said.isdigit() else 1


DATABASES = 16
"""Redis's own default."""


async def databases(client: Redis, endpoint: Endpoint) -> int | None:
    """How many databases the server has; None where it does not say."""
    try:
        async with conversation(endpoint):
            found = cast("dict[bytes, bytes]", await client.config_get("databases"))
        return int(next(iter(found.values())))
    except (Refused, StopIteration, ValueError):
        return await _databases_by_trial(endpoint)


async def _databases_by_trial(endpoint: Endpoint) -> int | None:
    """By asking for one too many, on a connection that is not used for anything else."""
    client = endpoint.client(connections=1)
    try:
        async with conversation(endpoint):
            try:
                await client.select(DATABASES)
            except ResponseError as error:
                answer = str(error)
                return 1 if "cluster mode" in answer else DATABASES if "out of range" in answer else None
        return None
    finally:
        await client.aclose()


async def expiry_word(client: Redis, endpoint: Endpoint) -> bytes:
    """The command by which the server replicates an expiration, DEL or UNLINK; empty where it does not say."""
    try:
        async with conversation(endpoint):
            found = cast("dict[str, str]", await client.config_get("lazyfree-lazy-expire"))
    except Refused:
        return b""
    return {"yes": b"UNLINK", "no": b"DEL"}.get(next(iter(found.values()), ""), b"")


async def now_ms(client: Redis, endpoint: Endpoint) -> int:
    """Redis's clock: Unix milliseconds."""
    async with conversation(endpoint):
        seconds, microseconds = await client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
