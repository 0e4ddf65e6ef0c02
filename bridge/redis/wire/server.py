"""What a Redis server must be for an epoch to begin (version, role), and what it reports about itself.

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
WITH_BLESS = (8, 12)
"""The first Redis that can protect a key from eviction."""
FIELDS_REDIS, FIELDS_VALKEY = (7, 4), (9, 0)
"""The first versions in which fields of hashes may have a deadline: HPEXPIRETIME."""
NAMING_REDIS = (8, 8)
"""The first version that can name the fields that a notification is about."""


@dataclass(frozen=True, slots=True)
class Server:
    """What the server reports about itself."""

    product: str
    """`Redis` or `Valkey`."""
    version: str
    role: str
    run_id: str
    clustered: bool = False
    """Whether it is a node of a cluster."""
    eviction: str = ""
    """Its `maxmemory-policy`; empty if it does not say."""

    @property
    def supported(self) -> bool:
        """Whether the bridge can work with this version."""
        return self._numbers >= (MIN_VALKEY if self.product == "Valkey" else MIN_REDIS)

    @property
    def blesses(self) -> bool:
        """Whether it can protect single keys from eviction."""
        return self.product == "Redis" and self._numbers >= WITH_BLESS

    @property
    def has_fields(self) -> bool:
        """Whether fields of hashes may have deadlines there."""
        return self._numbers >= (FIELDS_VALKEY if self.product == "Valkey" else FIELDS_REDIS)

    @property
    def names_fields(self) -> bool:
        """Whether it can name the fields that a notification is about."""
        return self.product == "Redis" and self._numbers >= NAMING_REDIS

    @property
    def primary(self) -> bool:
        """Whether it accepts writes, and expires keys itself."""
        return self.role == "master"

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])

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
    """Raise unless the bridge can work with this server: Refused, or NotConnected if it may be able to later."""
    if not server.supported:
        raise Refused(
            f"Redis at {endpoint} is {server.product} {server.version}",
            f"the bridge needs Redis {_text(MIN_REDIS)} or Valkey {_text(MIN_VALKEY)}, or newer"
            " (it reads deadlines with PEXPIRETIME)",
        )
    if endpoint.settings.fields and not server.has_fields:
        raise Refused(
            f"Redis at {endpoint} is {server.product} {server.version}, where fields of hashes cannot expire",
            f"BRIDGE_FIELDS needs Redis {_text(FIELDS_REDIS)} or Valkey {_text(FIELDS_VALKEY)}, or newer; unset it",
        )
    if server.clustered and endpoint.finder != CLUSTER:
        raise is_cluster_node(endpoint)
    if not server.primary:
        raise is_replica(endpoint, f" (role {server.role})")


async def shards_of(client: Redis, endpoint: Endpoint, names: Names) -> int:
    """How many shards the ledger has: 1 if no bridge has ever set that."""
    async with conversation(endpoint):
        said = await client.get(names.shards)
    return int(said) if said and said.isdigit() else 1


def count_differs(endpoint: Endpoint, shards: int, wanted: int) -> Refused:
    """The ledger has another number of shards than the settings: the bridge does not start, and `check` says so."""
    return Refused(
        f"the ledger in Redis at {endpoint} has {shards} shard{'s' * (shards != 1)}, and BRIDGE_SHARDS is {wanted}",
        f"set BRIDGE_SHARDS to {shards} (how to change the number: deploy/docs/how-to/shards.md)",
    )


DATABASES = 16
"""Redis's own default."""


async def databases(client: Redis, endpoint: Endpoint) -> int | None:
    """How many databases the server has; None if it does not say."""
    try:
        async with conversation(endpoint):
            found = cast("dict[bytes, bytes]", await client.config_get("databases"))
        return int(next(iter(found.values())))
    except (Refused, StopIteration, ValueError):
        return await _databases_by_trial(endpoint)


async def _databases_by_trial(endpoint: Endpoint) -> int | None:
    """Found by selecting one too many, on a connection that is used for nothing else."""
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
