"""The server of the Redis sink, for seeds that have that sink: the bridge runs the real one, and the server its script.

What is appended counts as stored. It is another server than the source's, and loses nothing.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.broker import STREAMS, Broker, Stored
from tests.simulation.redis.server import Server, Session
from tests.simulation.redis.values import Reply, Stream
from tests.simulation.redis.watcher import Watcher

if TYPE_CHECKING:
    from tests.simulation.faults import Nemesis

STREAM = b"expired"
"""As `BRIDGE_SINK_REDIS_STREAM` has it."""
APPEND = "append.lua"
SETTINGS = {"sink": "redis", "sink_redis_url": "redis://streams:6379/0"}


class Streams(Watcher):
    """What it stores is the broker's, and faults may meet its script."""

    def __init__(self, server: Server, broker: Broker, nemesis: "Nemesis") -> None:
        self._server = server
        self._broker = broker
        self._nemesis = nemesis
        self._read = 0
        """Entries of the stream that are in the broker's books."""
        server.watcher = self
        broker.server = server
        broker.network.listen(STREAMS, server)

    def before(self, script: str, session: Session, words: list[bytes]) -> bool:
        """See `Watcher`."""
        return self._nemesis.traps.before(script, session, words)

    def done(
        self, script: str | None, session: Session | None, reply: Reply = None, words: Sequence[bytes] = ()
    ) -> None:
        """See `Watcher`."""
        if script != APPEND:
            return
        stream = self._server.keyspace.databases[0].values.get(STREAM)
        entries = stream.entries if isinstance(stream, Stream) else []
        for _, said in entries[self._read :]:
            fields = dict(zip(said[::2], said[1::2], strict=True))
            body = fields[b"body"]
            gap = json.loads(body)["type"] == "redis.expiry.gap"
            self._broker.keep(Stored(fields[b"ce_id"].decode(), fields[b"key"], body, gap, self._broker.now))
        self._read = len(entries)
        if session is not None:
            self._nemesis.traps.after(script, session, reply, words)
