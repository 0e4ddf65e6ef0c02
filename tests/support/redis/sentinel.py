"""A primary, a replica and three sentinels, as objects that tests start, stop and signal."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tests.support.redis.commands import run
from tests.support.servers import PATIENCE, RedisServer, require, start, wait_until

SERVICE = "mymaster"
PATIENT_MS, HASTY_MS = 600_000, 1_000
"""For how long a server may be silent until it is taken for dead: on a busy machine one that is well may be silent for
seconds, so the latter holds only while a test waits for the end of one that is not.
"""
HASTE = ("INFO-PERIOD", 200, "PING-PERIOD", 200, "ASK-PERIOD", 200, "PUBLISH-PERIOD", 1000, "TILT-PERIOD", 1000)
"""A test has no time for the usual ten seconds. But a sentinel that has not heard in four periods of publishing that a
replica was promoted makes it a replica again: on a busy machine that takes longer than 0.8 s.
"""


class SentinelServer(RedisServer):
    """One sentinel, of the program that the primary is of."""

    scheme = "redis+sentinel"

    def __init__(
        self, primary: RedisServer, *, password: str = "", tls: tuple[int, Mapping[str, str]] | None = None
    ) -> None:
        """With a `password`, clients and other sentinels need it. `tls`: the primary's port, and directives."""
        super().__init__()
        self.name = "sentinel"
        self.program = primary.program  # type: ignore[method-assign]
        port, directives = tls or (primary.port, {})
        self._lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {SERVICE} 127.0.0.1 {port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {PATIENT_MS}",
            f"sentinel failover-timeout {SERVICE} 2000",
            *(f"{name} {value}" for name, value in directives.items()),
            *((f"requirepass {password}", f"sentinel sentinel-pass {password}") if password else ()),
        ]

    def command(self) -> Sequence[str]:
        """See `Process`. It keeps what it knows in its configuration file, so that is written only once."""
        file = self.directory / "sentinel.conf"
        if not file.exists():
            file.write_text("\n".join([*self._lines, f"dir {self.directory}", ""]))
        return [str(self.program()), str(file), "--sentinel"]


class Group:
    """A primary with one replica, and three sentinels that watch them. `async with Group.of(kind) as group:`."""

    def __init__(self, nodes: Sequence[RedisServer], sentinels: Sequence[SentinelServer], password: str) -> None:
        self.nodes = nodes
        self.sentinels = sentinels
        self.password = password
        """At the sentinels."""

    @classmethod
    @asynccontextmanager
    async def of(
        cls, kind: type[RedisServer], *, redis: Mapping[str, str] | None = None, password: str = ""
    ) -> AsyncIterator["Group"]:
        """Start all of it; it is ready for a failover."""
        require(kind)
        config = {"repl-diskless-sync-delay": "0", "repl-timeout": "5", **(redis or {})}
        async with AsyncExitStack() as stack:
            first = kind(config)
            second = kind({**config, "replicaof": f"127.0.0.1 {first.port}"})
            nodes = [first, second]
            sentinels = [SentinelServer(first, password=password) for _ in range(3)]
            for server in (*nodes, *sentinels):
                stack.callback(server.close)
                await start(server)
            group = cls(nodes, sentinels, password)
            for sentinel in sentinels:
                await group.ask(sentinel, "DEBUG", *HASTE)
            await group.prepared()
            yield group

    @property
    def url(self) -> str:
        """As in BRIDGE_REDIS_URL."""
        return self.url_of(*self.sentinels)

    def url_of(self, *sentinels: RedisServer, service: str = SERVICE) -> str:
        """The same with these sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in sentinels)}/{service}/0"

    async def ask(self, sentinel: SentinelServer, *command: str | int) -> Any:  # noqa: ANN401 - whatever it answers
        """The answer to a SENTINEL command."""
        async with Redis(
            port=sentinel.port, password=self.password or None, decode_responses=True, protocol=2
        ) as client:
            return await run(client, "SENTINEL", *command)

    async def state(self, sentinel: SentinelServer) -> dict[str, str]:
        """What a sentinel knows of the service."""
        flat = await self.ask(sentinel, "MASTER", SERVICE)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def primary(self) -> RedisServer | None:
        """The one that every sentinel that runs names, and that is one."""
        running = [sentinel for sentinel in self.sentinels if sentinel.running]
        named = {tuple(await self.ask(sentinel, "GET-MASTER-ADDR-BY-NAME", SERVICE)) for sentinel in running}
        found = [node for node in self.nodes if named == {("127.0.0.1", str(node.port))}]
        return found[0] if found and await role(found[0]) == "master" else None

    async def promoted(self, node: RedisServer) -> None:
        """Return when it is the primary, for all."""

        async def is_promoted() -> bool:
            return await self.primary() is node

        await wait_until(is_promoted, lambda: f"the promotion\n{self._logs()}", PATIENCE)

    async def replaced(self, node: RedisServer) -> None:
        """Have the other one promoted in the place of one that is silent; return when it is the primary, for all."""
        (other,) = (one for one in self.nodes if one is not node)
        async with self.hasty():
            await self.promoted(other)

    @asynccontextmanager
    async def hasty(self) -> AsyncIterator[None]:
        """A server that is silent is soon taken for dead: only while one is."""
        await self._take_for_dead(HASTY_MS)
        try:
            yield
        finally:
            await self._take_for_dead(PATIENT_MS)

    async def _take_for_dead(self, after_ms: int) -> None:
        for sentinel in self.sentinels:
            await self.ask(sentinel, "SET", SERVICE, "down-after-milliseconds", after_ms)

    def _logs(self) -> str:
        return "\n\n".join(server.log() for server in (*self.sentinels, *self.nodes))

    async def fail_over(self) -> None:
        """Have the replica promoted, without need; return when it is the primary, for all."""
        former = await self.primary()
        assert former is not None
        (other,) = (node for node in self.nodes if node is not former)

        async def is_done() -> bool:
            primary = await self.primary()
            if primary is former and (await self.state(self.sentinels[0]))["flags"] == "master":
                with suppress(ResponseError):  # what it knows of the replica is too old, or it has just begun
                    await self.ask(self.sentinels[0], "FAILOVER", SERVICE)
            return primary is other

        await wait_until(is_done, lambda: f"a failover\n{self._logs()}", PATIENCE)

    async def prepared(self) -> None:
        """Return when the replica is in step with the primary, and each sentinel knows all others, and it."""

        async def is_prepared() -> bool:
            known = [await self.state(sentinel) for sentinel in self.sentinels]
            if {(state["num-slaves"], state["num-other-sentinels"], state["flags"]) for state in known} != {
                ("1", "2", "master")
            }:
                return False
            primary = await self.primary()
            if primary is None:
                return False
            (replica,) = (node for node in self.nodes if node is not primary)
            return (await replication(replica)).get("master_link_status") == "up"

        await wait_until(is_prepared, lambda: f"a replica and sentinels\n{self.sentinels[0].log()}", PATIENCE)


async def replication(node: RedisServer) -> dict[str, Any]:
    """What a node says of its replication; nothing while it does not answer."""
    once = Retry(NoBackoff(), 0)
    async with Redis(port=node.port, socket_timeout=0.5, retry=once, decode_responses=True) as client:
        try:
            return await client.info("replication")
        except RedisError:
            return {}


async def role(node: RedisServer) -> str | None:
    """`master`, `slave`, or None."""
    return (await replication(node)).get("role")
