"""Three NATS servers that are one JetStream cluster, as objects that tests start, stop and signal."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import StreamInfo

from bridge.commands.embedded import free_port
from tests.support.contract import STREAM
from tests.support.servers import PATIENCE, NatsServer, require, start, wait_until


class NatsCluster:
    """The servers. `async with NatsCluster.of() as cluster:`."""

    def __init__(self, size: int = 3) -> None:
        ports = [free_port() for _ in range(size)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.servers = [
            NatsServer(
                f'server_name: "n{number}"\n'
                f'cluster {{ name: "c", listen: "127.0.0.1:{port}", routes: [{routes}], no_advertise: true }}'
            )
            for number, port in enumerate(ports)
        ]
        self._frozen: NatsServer | None = None

    @classmethod
    @asynccontextmanager
    async def of(cls, size: int = 3) -> AsyncIterator["NatsCluster"]:
        """Start them; they take streams."""
        require(NatsServer)
        cluster = cls(size)
        async with AsyncExitStack() as stack:
            for server in cluster.servers:
                stack.callback(server.close)
                await start(server)
            await wait_until(cluster.serves, "a leader of the cluster", PATIENCE)
            yield cluster

    @property
    def url(self) -> str:
        """As in BRIDGE_NATS_URL."""
        return ",".join(server.url for server in self.servers)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of a server that runs and is not frozen."""
        server = next(server for server in self.servers if server.running and server is not self._frozen)
        client = await nats.connect(server.url, allow_reconnect=False)
        try:
            yield client
        finally:
            await client.close()

    @contextmanager
    def frozen(self, server: NatsServer) -> Iterator[None]:
        """Freeze one for the block."""
        server.pause()
        self._frozen = server
        try:
            yield
        finally:
            self._frozen = None
            server.resume()

    async def serves(self) -> bool:
        """Whether the JetStream API answers."""
        try:
            async with self.client() as client:
                await client.jetstream(timeout=1).account_info()
        except (Error, OSError):
            return False
        return True

    async def info(self) -> StreamInfo | None:
        """Of the bridge's stream; None while nobody answers."""
        try:
            async with self.client() as client:
                return await client.jetstream(timeout=1).stream_info(STREAM)
        except (Error, OSError):
            return None

    async def leader(self) -> NatsServer | None:
        """The server that leads the stream; None while there is none."""
        info = await self.info()
        name = info.cluster.leader if info and info.cluster else None
        return self.servers[int(name[1:])] if name else None

    async def in_step(self) -> None:
        """Return when all copies of the stream are there and current."""

        async def is_in_step() -> bool:
            info = await self.info()
            replicas = info.cluster.replicas if info and info.cluster else None
            return (
                replicas is not None
                and len(replicas) == len(self.servers) - 1
                and all(replica.current and not replica.offline for replica in replicas)
            )

        await wait_until(is_in_step, "copies in step", PATIENCE)
