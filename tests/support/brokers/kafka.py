"""A real Apache Kafka as an object that tests start, stop and signal, like those in `tests/support/servers.py`."""

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer

from bridge.commands.embedded import EmbeddedKafka, Unavailable, free_port
from bridge.commands.embedded.kafka import addresses, java_version
from tests.support.proxy import Proxy

SESSION_SECONDS = 1.0
"""After which a broker that says nothing is none for the controller."""


class KafkaServer(EmbeddedKafka):
    """A Kafka broker that anybody may use, unless `config` says otherwise.

    It listens on `port`, on `proxied_port`, whose clients it sends on to `proxy_port` (a proxy that listens there sees
    all that they say), and on one more port, in `ports`, for each of `listeners`.
    """

    def __init__(
        self,
        config: Mapping[str, str] | None = None,
        *,
        listeners: Mapping[str, str] | None = None,
        users: Sequence[str] = (),
        joins: "KafkaServer | None" = None,
    ) -> None:
        """`config` maps properties to their values, `listeners` names to security protocols; `users` are SCRAM
        credentials, written as `kafka.tools.StorageTool` takes them; `joins` is the first server of the cluster.
        """  # noqa: D205 - one sentence
        super().__init__(config)
        self.proxied_port, self.proxy_port = free_port(), free_port()
        self.ports = {name: free_port() for name in listeners or {}}
        self.node: int = joins.node + 1 if joins else 1
        self._protocols = {"PLAINTEXT": "PLAINTEXT", "PROXIED": "PLAINTEXT", **(listeners or {})}
        self._users = users
        self._joins = joins

    def proxy(self) -> Proxy:
        """The proxy for the clients of `proxied_port`; not listening yet."""
        made = Proxy(self.proxied_port)
        made.port = self.proxy_port
        return made

    def properties(self) -> dict[str, str]:
        """See `EmbeddedKafka`."""
        ports = {"PLAINTEXT": self.port, "PROXIED": self.proxied_port, **self.ports}
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        first = self._joins or self
        return {
            **super().properties(),
            "process.roles": "broker" if self._joins else "broker,controller",
            "node.id": str(self.node),
            "listeners": addresses(ports if self._joins else {**ports, "CONTROLLER": self.controller_port}),
            "advertised.listeners": addresses({**ports, "PROXIED": self.proxy_port}),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "controller.quorum.voters": f"{first.node}@127.0.0.1:{first.controller_port}",
            # After a kill, the controller takes the broker back only when the last one's session is over.
            "broker.session.timeout.ms": f"{SESSION_SECONDS * 1000:.0f}",
            "broker.heartbeat.interval.ms": "250",
            "transaction.state.log.num.partitions": "1",
        }

    def storage_options(self) -> Sequence[str]:
        """See `EmbeddedKafka`."""
        return [part for user in self._users for part in ("--add-scram", user)]


async def keep_transactions_here(server: KafkaServer) -> None:
    """Let the server have the log of transactions, before another broker joins it and may leave again."""
    producer = AIOKafkaProducer(bootstrap_servers=server.address, transactional_id="first")
    try:
        await producer.start()
    finally:
        await producer.stop()


def version() -> str:
    """Which Kafka, or why there is none: for the head of the test report."""
    try:
        java = KafkaServer.program()
    except Unavailable as error:
        return f"MISSING, its tests are skipped: {error}"
    return f"{KafkaServer.jar().stem} on Java {java_version(str(java))}"
