"""An Apache Kafka: one node, which is its own controller (KRaft), in a JVM of its own.

Kafka comes in no Python package. Its jars are looked for where KAFKA_HOME says, else in the source checkout that this
module belongs to, where `make setup` puts them.
"""

import functools
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from bridge.commands.embedded.process import Process
from bridge.commands.embedded.server import Server, StartFailed, Unavailable, free_port

OLDEST_JAVA = 17
MAIN_JAR = "kafka_2.*.jar"
OF_THE_CHECKOUT = Path(__file__).resolve().parents[3] / ".cache" / "kafka"
"""Where `.ci/bootstrap` puts what `tests/support/brokers/pom.xml` asks for."""

ARCHIVE = "classes.jsa"
"""Beside the jars, if `.ci/bootstrap` has made one: a JVM that finds the classes there starts in half the time."""
SERVER = "kafka.Kafka"
"""The class of the broker."""

JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # a file in /tmp, which a JVM that is killed would leave there
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
CLUSTER_ID = "ZXhwaXJ5LWJyaWRnZS1rZg"  # 16 bytes in base64, as Kafka wants them
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The first question of every client: its size, the API and its version, a number of ours, no name."""


class EmbeddedKafka(Server):
    """A Kafka broker that anybody may use, unless `config` says otherwise. It keeps its data through a restart."""

    scheme = "kafka"
    start_seconds = 60.0  # some three on an idle machine
    heap_mb = 512

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        """`config` maps properties to their values, written as in the configuration file."""
        super().__init__("kafka")
        self.config = config or {}
        self.controller_port = free_port()

    @classmethod
    def program(cls) -> Path:
        """The JVM. Raises Unavailable: there is none, or no Kafka for it to run; it says all that is missing."""
        java = shutil.which("java")
        missing = []
        if java is None or java_version(java) < OLDEST_JAVA:
            found = "there is none on the PATH" if java is None else f"{java} is older, or no JVM"
            missing.append(f"Kafka needs Java {OLDEST_JAVA} or newer, and {found}: install one (a JRE will do)")
        try:
            cls.jar()
        except Unavailable as error:
            missing.append(str(error))
        if java is None or missing:
            raise Unavailable("; ".join(missing))
        return Path(java).absolute()

    @classmethod
    def jar(cls) -> Path:
        """The jar that is named after Kafka's version; the others lie beside it. Raises Unavailable."""
        home = os.environ.get("KAFKA_HOME")
        for jar in sorted((Path(home) / "libs" if home else OF_THE_CHECKOUT).glob(MAIN_JAR)):
            return jar.absolute()
        if home:
            raise Unavailable(f"KAFKA_HOME ({home}) must be the directory of an unpacked Apache Kafka, with its libs/")
        raise Unavailable(
            "Apache Kafka is not at hand: set KAFKA_HOME to the directory of an unpacked one, or install mvn (Maven)"
            " and run `rm -f .venv/.installed-dev && make setup` in a source checkout"
        )

    @classmethod
    def archive(cls) -> Path:
        """Where the archive of its classes is, if there is one. Raises Unavailable."""
        return cls.jar().parent / ARCHIVE

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    def properties(self) -> dict[str, str]:
        """The configuration, which `config` goes on top of."""
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": addresses({"PLAINTEXT": self.port, "CONTROLLER": self.controller_port}),
            "advertised.listeners": addresses({"PLAINTEXT": self.port}),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
        }

    def storage_options(self) -> Sequence[str]:
        """The arguments of `kafka.tools.StorageTool format` besides the cluster and the configuration."""
        return ()

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return self.java(SERVER, str(self._properties))

    def java(self, *arguments: str) -> Sequence[str]:
        """A JVM with Kafka's classes: `arguments` are a class and its arguments."""
        own = [f"-Djava.io.tmpdir={self.directory}"]  # libraries are unpacked there
        if self.archive().exists():
            own += [f"-XX:SharedArchiveFile={self.archive()}", "-Xlog:cds*=off"]  # one that does not fit is ignored
        return [str(self.program()), f"-Xmx{self.heap_mb}m", *JVM, *own, "-cp", f"{self.jar().parent}/*", *arguments]

    def starting(self) -> Generator[None, None, None]:
        """See `Server`. The storage has to be prepared once: Kafka does not do that itself."""
        properties = {**self.properties(), **self.config}
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), "utf-8")
        if not (self.directory / "data").exists():
            yield from self._format()
        yield from super().starting()

    def answers(self) -> bool:
        """See `Server`. It listens early, and answers when it serves."""
        return len(self._ask(API_VERSIONS, 4)) > 0

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _format(self) -> Generator[None, None, None]:
        tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties)]
        formatting = _Job("kafka-format", self.java(*tool, *self.storage_options()))
        try:
            formatting.start()
            while formatting.running:
                yield
            if formatting.returncode:
                raise StartFailed(f"kafka's storage could not be formatted:\n{formatting.log()}")
        finally:
            formatting.close()


class _Job(Process):
    """A process that does one thing, and ends."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        super().__init__(name)
        self._command = command

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return self._command


@functools.cache
def java_version(java: str) -> int:
    """The major version of a JVM; 0 if it does not say."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def addresses(ports: Mapping[str, int]) -> str:
    """Listeners by name, as Kafka's properties want them."""
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
