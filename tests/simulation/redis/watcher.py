"""What the simulated world sees of a server, from inside."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.redis.keyspace import Database
from tests.simulation.redis.values import Reply

if TYPE_CHECKING:
    from tests.simulation.redis.server import Session


class Watcher:
    """What the simulated world wants to know of a server. This one wants to know nothing."""

    def ended(self, database: Database, key: bytes, how: str) -> None:
        """A key is about to go; `how` is the event, empty where it is overwritten."""

    def changed(self, database: Database, key: bytes) -> None:
        """A key was changed, or has gone."""

    def read(self, key: bytes, deadline: Reply) -> None:
        """A script of the bridge's has read a key's deadline."""

    def before(self, script: str, session: "Session", words: list[bytes]) -> bool:
        """A script is about to run. False: its request was lost, or is done later."""
        return True

    def done(
        self, script: str | None, session: "Session | None", reply: Reply = None, words: Sequence[bytes] = ()
    ) -> None:
        """A command, or a script of that name, has come to its end; its reply is not sent yet. `words`: how it was
        called.
        """  # noqa: D205 - one paragraph
