"""A real Apache Kafka as an object that tests start, stop and signal, like those in `tests/servers.py`.

One node, which is its own controller (KRaft), in a JVM of its own. It keeps its data through a kill and a restart.
"""

import contextlib
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.commands.embedded import Process, Server, StartFailed, Unavailable, free_port
from tests.servers import ROOT

JARS = ROOT / ".cache" / "kafka"
"""Where `.ci/bootstrap` puts what `tests/pom.xml` asks for."""
START_SECONDS = 60.0
"""Some three on an idle machine."""
OLDEST_JAVA = 17
MAIN_JAR = "kafka_2.*.jar"

JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
CLUSTER_ID = "ZXhwaXJ5LWJyaWRnZS1rZg"  # 16 bytes in base64, as Kafka wants them
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The first question of every client: its size, the API and its version, a number of ours, no name."""


class KafkaServer(Server):
    """A Kafka broker that anybody may use, unless `config` says otherwise.

    It listens on `port`, on `proxied_port`, whose clients it sends on to `proxy_port` (a proxy that listens there sees
    all that they say), and on one more port, in `ports`, for each of `listeners`.
    """

    scheme = "kafka"

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
        super().__init__("kafka")
        self.config = config or {}
        self.proxied_port, self.proxy_port = free_port(), free_port()
        self.ports = {name: free_port() for name in listeners or {}}
        self.node: int = joins.node + 1 if joins else 1
        self._protocols = {"PLAINTEXT": "PLAINTEXT", "PROXIED": "PLAINTEXT", **(listeners or {})}
        self._users = users
        self._controller_port = free_port()
        self._joins = joins

    @classmethod
    def program(cls) -> Path:
        """The JVM. Raises Unavailable: there is none, or no Kafka for it to run."""
        java = shutil.which("java")
        if java is None or java_version(Path(java)) < OLDEST_JAVA:
            raise Unavailable(
                f"no java ({OLDEST_JAVA} or newer) is on the PATH: install one, and mvn, and `make setup`"
            )
        if not any(JARS.glob(MAIN_JAR)):
            raise Unavailable("Kafka is not in .cache/kafka: install mvn (Maven), and run `make setup`")
        return Path(java)

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [*self._java(), "kafka.Kafka", str(self._properties)]

    def start(self) -> None:
        """See `Server`, whose patience is for lighter servers."""
        self._configure()
        Process.start(self)
        deadline = time.monotonic() + START_SECONDS
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.answers():
                    return
            time.sleep(0.02)
        self.kill()
        raise StartFailed(f"kafka did not start; its log ends with:\n{self.log()}")

    def answers(self) -> bool:
        """See `Server`. It listens early, and answers when it serves."""
        return len(self._ask(API_VERSIONS, 4)) > 0

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _java(self) -> list[str]:
        return [str(self.program()), *JVM, "-cp", f"{JARS}/*"]

    def _configure(self) -> None:
        """Write the configuration and, once, prepare the storage, which Kafka does not do by itself."""
        ports = {"PLAINTEXT": self.port, "PROXIED": self.proxied_port, **self.ports}
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        first = self._joins or self
        config = {
            "process.roles": "broker" if self._joins else "broker,controller",
            "node.id": str(self.node),
            "listeners": _addresses(ports if self._joins else {**ports, "CONTROLLER": self._controller_port}),
            "advertised.listeners": _addresses({**ports, "PROXIED": self.proxy_port}),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"{first.node}@127.0.0.1:{first._controller_port}",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            # After a kill, the controller takes the broker back only when the last one's session is over.
            "broker.session.timeout.ms": "1000",
            "broker.heartbeat.interval.ms": "250",
            **self.config,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        if not (self.directory / "data").exists():
            self._format()

    def _format(self) -> None:
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties)]
        for user in self._users:
            command += ["--add-scram", user]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        if done.returncode:
            raise StartFailed(f"kafka's storage could not be formatted:\n{done.stdout}\n{done.stderr}")


def java_version(java: Path) -> int:
    """The major version of a JVM; 0 if it does not say."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def version() -> str:
    """Which Kafka, or why there is none: for the head of the test report."""
    try:
        java = KafkaServer.program()
    except Unavailable as error:
        return f"MISSING, its tests are skipped: {error}"
    (jar,) = JARS.glob(MAIN_JAR)
    return f"{jar.stem} on Java {java_version(java)}"


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
