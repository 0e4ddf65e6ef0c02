"""Reading Redis Streams: from entry to entry, without a consumer group; and their end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

from bridge.clock import SystemClock
from bridge.commands.readers.arrivals import Arrival, read_event
from bridge.errors import Unusable
from bridge.limits import WireLimits
from bridge.redis.wire.conversation import conversation
from bridge.settings import Settings
from bridge.sinks.redis.keys import StreamTemplate
from bridge.sinks.redis.servers import Servers, named, servers_of

COUNT = 500
PAUSE_SECONDS = 0.25
"""Between two looks at streams in which there was nothing new."""
ROUNDS = 3
"""Times the entries that are wanted, some of which announce no expiration."""

Entries = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class RedisReader:
    """See `Reader`."""

    def __init__(self, settings: Settings, db: int, examples: tuple[bytes, bytes]) -> None:
        """See `create`."""
        self._settings = settings
        streams = StreamTemplate(settings, db)
        self._last: dict[bytes, bytes | None] = dict.fromkeys(map(streams.of, examples))
        """By stream, the id of the last entry that was read."""
        self._servers: Servers | None = None

    @property
    def place(self) -> str:
        """See `Reader`."""
        return f"Redis Stream {', '.join(stream.decode() for stream in self._last)}"

    async def open(self) -> None:
        """See `Reader`."""
        await self.close()
        self._servers = servers = servers_of(self._settings, WireLimits(), SystemClock())
        try:
            await servers.open()
            for stream, last in self._last.items():
                if last is None:
                    newest = await entries_of(servers, stream, newest=1)
                    self._last[stream] = newest[0][0] if newest else b"0-0"
        except Unusable as error:
            raise named(error, self._settings) from None

    async def read(self) -> list[Arrival]:
        """See `Reader`."""
        if self._servers is None:
            await self.open()
        found: list[Arrival | None] = []
        try:
            for stream, last in self._last.items():
                entries = await entries_of(cast("Servers", self._servers), stream, after=last or b"0-0")
                if entries:
                    self._last[stream] = entries[-1][0]
                found += [arrival_of(*entry) for entry in entries]
        except Unusable as error:
            raise named(error, self._settings) from None
        if not found:
            await asyncio.sleep(PAUSE_SECONDS)
        return [arrival for arrival in found if arrival is not None]

    async def close(self) -> None:
        """See `Reader`."""
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()


class RedisTail:
    """See `Tail`. Of one stream."""

    def __init__(self, settings: Settings, stream: bytes) -> None:
        self._settings = settings
        self._stream = stream
        self._servers: Servers | None = None

    async def last(self, limit: int) -> list[Arrival]:
        """See `Tail`. Nothing where there is no stream yet."""
        try:
            if self._servers is None:
                self._servers = servers_of(self._settings, WireLimits(), SystemClock())
                await self._servers.open()
            entries = await entries_of(self._servers, self._stream, newest=ROUNDS * limit)
        except Unusable as error:
            raise named(error, self._settings) from None
        return [arrival for entry in entries if (arrival := arrival_of(*entry)) is not None][:limit]

    async def close(self) -> None:
        """See `Tail`."""
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()


def tail_of(settings: Settings, db: int) -> RedisTail | None:
    """That of the one stream, if there is only one."""
    stream = StreamTemplate(settings, db).fixed
    return None if stream is None else RedisTail(settings, stream)


async def entries_of(servers: Servers, stream: bytes, *, after: bytes = b"", newest: int = 0) -> Entries:
    """The entries behind `after`, or the newest ones first. Raises NotConnected or Refused."""
    client, endpoint = servers.of(stream)
    async with conversation(endpoint):
        if newest:
            found: object = await client.xrevrange(stream, count=newest)
        else:
            found = await client.xrange(stream, min=b"(" + after, count=COUNT)
    return cast("Entries", found)


def arrival_of(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Arrival | None:
    """What an entry says. None: it announces no expiration."""
    words = {name.decode(): value for name, value in fields.items()}
    attributes = {
        name.removeprefix("ce_"): value.decode(errors="replace")
        for name, value in words.items()
        if name.startswith("ce_")
    }
    return read_event(words.get("body", b""), attributes, float(entry_id.partition(b"-")[0]))
