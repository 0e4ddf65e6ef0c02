"""Where misconfigurations are planted: servers for the scenes of `test_planted.py`, as wrong as each wants them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from bridge.commands.embedded import free_port
from tests.integration.doctor import SECRET, SOUND
from tests.integration.mends import Apply, nats_cli
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.servers import NatsServer, RedisServer, wait_until

Settings = dict[str, Any]


class Accounts(NatsServer):
    """A NATS server to which accounts are added while it runs: each has one user, `of-NAME`, and streams of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: dict[str, str] = {}

    def set(self, name: str, jetstream: str, permissions: str) -> None:
        """Add the account, or change it; return when that counts."""
        rights = f", permissions: {permissions}" if permissions else ""
        users = f"users: [{{ user: of-{name}, password: {SECRET}{rights} }}]"
        self._texts[name] = f"{name} {{ {f'jetstream: {jetstream}, ' if jetstream else ''}{users} }}"
        self.config = f"accounts {{ {', '.join(self._texts.values())} }}"
        done = self._reloads
        self.command()  # writes it
        self.send_signal(signal.SIGHUP)
        asyncio.run(wait_until(lambda: self._reloads > done, self.log))

    @property
    def _reloads(self) -> int:
        return (self.directory / "stderr").read_text().count("Reloaded server configuration")


class WithoutJetStream(NatsServer):
    """A NATS server that only passes messages on."""

    def command(self) -> Sequence[str]:
        """See `Process`."""
        program, option, file = super().command()
        text = Path(file).read_text()
        Path(file).write_text("".join(line for line in text.splitlines(keepends=True) if "jetstream" not in line))
        return [program, option, file]


@dataclass
class Account:
    """One of those, with the settings that use it."""

    server: Accounts
    name: str
    settings: Settings

    @property
    def apply(self) -> Apply:
        """Its remedies for streams."""
        return nats_cli(servers=self.server.url, user=f"of-{self.name}", password=SECRET)

    def allow(self, remedy: str) -> None:
        """Do what a remedy says of the user's permissions."""
        self.server.set(self.name, "enabled", remedy.partition("permissions: ")[2].partition("; or ")[0])

    def work(self, work: Callable[[JetStreamContext], Awaitable[object]]) -> None:
        """Do something in it, as a user that may."""

        async def connected() -> None:
            client = await nats.connect(self.server.url, user=f"of-{self.name}", password=SECRET)
            try:
                await work(client.jetstream())
            finally:
                await client.close()

        asyncio.run(connected())

    def stream(self, **config: Any) -> None:  # noqa: ANN401 - of StreamConfig
        """Make a stream in which nothing is wrong but `config`."""
        good = StreamConfig(name="EXPIRY", subjects=["expired.>"], duplicate_window=600.0, max_age=604_800.0)
        self.work(lambda jetstream: jetstream.add_stream(good.evolve(**config)))


@dataclass
class Ground:
    """For one scene: what it starts ends with it."""

    request: pytest.FixtureRequest
    stack: ExitStack

    def redis(self, config: Mapping[str, str] | None = None) -> RedisServer:
        """A Redis in which nothing is wrong but `config`."""
        return self.stack.enter_context(RedisServer({**SOUND, **(config or {})}))

    def nats(self, config: str = "") -> Settings:
        """The settings for a NATS of the scene's own."""
        return self.with_redis(nats_url=self.stack.enter_context(NatsServer(config)).url)

    def nats_cluster(self) -> Settings:
        """The settings for three NATS servers that are a cluster; return when it takes streams."""
        ports = [free_port() for _ in range(3)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        servers = [
            NatsServer(
                f'server_name: n{number}\ncluster {{ name: three, listen: "127.0.0.1:{port}", routes: [{routes}] }}',
                name=f"nats-{number}",
            )
            for number, port in enumerate(ports)
        ]
        for server in servers:
            self.stack.enter_context(server)
        asyncio.run(wait_until(lambda: has_leader(servers[0].url), servers[0].log, 30))
        return self.with_redis(nats_url=servers[0].url)

    def account(self, jetstream: str = "enabled", permissions: str = "") -> Account:
        """An account of the scene's own, on a shared server."""
        server: Accounts = self.request.getfixturevalue("accounts")
        name = f"A{len(server.config)}"
        server.set(name, jetstream, permissions)
        login = {"nats_user": f"of-{name}", "nats_password": SECRET}
        return Account(server, name, self.with_redis(nats_url=server.url, **login))

    def kafka(self, fixture: str = "kafka_server") -> tuple[KafkaRig, Settings]:
        """A topic of the scene's own, not made yet, on a shared server, and the settings that use it."""
        server: KafkaServer = self.request.getfixturevalue(fixture)
        rig = KafkaRig(server)
        settings = {
            name: ",".join(value) if isinstance(value, list) else str(value) for name, value in rig.settings.items()
        }
        return rig, self.with_redis(sink="kafka", **settings)

    def with_redis(self, **settings: str) -> Settings:
        """These settings, a Redis in which nothing is wrong, and a bound for a stream that the bridge makes."""
        if "nats_url" in settings:
            settings["nats_retention_hours"] = "168"
        return {"redis_url": self.request.getfixturevalue("redis_url"), **settings}


async def has_leader(url: str) -> bool:
    """Whether the cluster can make streams."""
    client = await nats.connect(url)
    try:
        await client.jetstream(timeout=1).account_info()
    except NatsError:
        return False
    else:
        return True
    finally:
        await client.close()


async def in_sync(url: str, replicas: int) -> bool:
    """Whether so many servers have all of the stream."""
    client = await nats.connect(url)
    try:
        cluster = (await client.jetstream().stream_info("EXPIRY")).cluster
    finally:
        await client.close()
    peers = cluster.replicas if cluster is not None and cluster.leader else None
    return len(peers or ()) == replicas - 1 and all(peer.current for peer in peers or ())
