"""What the broker has stored, read back as any consumer would: for the commands that show or verify it.

Guarantees: other consumers are not disturbed, no position is stored at the broker, and nothing is left there.
"""

from typing import Protocol

from bridge.commands.readers.arrivals import Arrival
from bridge.errors import ConfigurationError
from bridge.settings import Settings, SinkKind

__all__ = ["Arrival", "Reader", "Tail", "create", "tail"]


class Reader(Protocol):
    """Reads the announced expirations that a broker stores from the first `open()` on."""

    @property
    def place(self) -> str:
        """What is read, for people."""

    async def open(self) -> None:
        """Connect. The first time, what is stored from now on will be read; later, what follows on the last `read()`.

        May be called again after any failure. Raises NotConnected (try again) or Refused (an operator must act).
        """

    async def read(self) -> list[Arrival]:
        """What has come next: waits a moment for it, and may be empty. Raises NotConnected: `open()` again; Refused."""

    async def close(self) -> None:
        """Give everything back, within a bounded time. Never raises."""


def create(settings: Settings, db: int, examples: tuple[bytes, bytes]) -> Reader:
    """The reader of what `settings.sink` stores; `db` is the number of the Redis database.

    `examples` are two of the keys to be read: whatever lies between those two, as the broker files it, is read.
    Raises ConfigurationError: what the bridge writes there cannot be read back.
    """
    match settings.sink:
        case SinkKind.JETSTREAM:
            from bridge.commands.readers.jetstream import JetStreamReader  # noqa: PLC0415 - only it imports nats

            return JetStreamReader(settings, db, examples)
        case SinkKind.KAFKA:
            from bridge.commands.readers.kafka import KafkaReader  # noqa: PLC0415 - likewise aiokafka

            return KafkaReader(settings, db, examples)
        case SinkKind.REDIS:
            from bridge.commands.readers.redis import RedisReader  # noqa: PLC0415 - likewise the sink's connections

            return RedisReader(settings, db, examples)
        case SinkKind.STDOUT:
            raise ConfigurationError(
                ["BRIDGE_SINK: stdout cannot be read back by another process; choose jetstream, kafka or redis"]
            )


class Tail(Protocol):
    """The last of the announced expirations that a broker stores, looked at again and again."""

    async def last(self, limit: int) -> list[Arrival]:
        """Up to `limit` of them, newest first. Connects, if need be.

        Raises NotConnected or Refused: that cannot be known now; `close()` it, then it may be asked again.
        """

    async def close(self) -> None:
        """Give everything back, within a bounded time. Never raises."""


def tail(settings: Settings, db: int) -> Tail | None:
    """That of what `settings.sink` stores; None where nothing is stored, or in a stream for each prefix.

    Raises ConfigurationError.
    """
    match settings.sink:
        case SinkKind.JETSTREAM:
            from bridge.commands.readers.jetstream_tail import JetStreamTail  # noqa: PLC0415 - see `create`

            return JetStreamTail(settings, db)
        case SinkKind.KAFKA:
            from bridge.commands.readers.kafka_tail import KafkaTail  # noqa: PLC0415 - likewise

            return KafkaTail(settings, db)
        case SinkKind.REDIS:
            from bridge.commands.readers.redis import tail_of  # noqa: PLC0415 - likewise

            return tail_of(settings, db)
        case SinkKind.STDOUT:
            return None
