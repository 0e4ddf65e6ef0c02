"""One session with the sink's Redis: batches are appended until it ends, for a reason, for good.

Whatever goes wrong with the connection, or with what is known of the servers, ends it; the next one finds them anew.
What a server refuses of a stream alone (it is full, the key holds something else) is refused, and tried again.
"""

import asyncio
from collections.abc import Sequence

from bridge.contracts import Batch, Receipts
from bridge.errors import NotConnected, Refused, Unusable
from bridge.redis.wire.conversation import conversation
from bridge.sinks.redis.context import Context
from bridge.sinks.redis.entries import Place, Word, fields_of, places
from bridge.sinks.redis.script import OTHER_TYPE, append
from bridge.sinks.redis.servers import named, servers_of
from bridge.sinks.session_life import SessionLife
from bridge.tasks import end

AT_ONCE = 4
"""Streams that one session appends to side by side: fewer than there are connections."""
KEEP_SECONDS = 30 * 24 * 3600
"""After which a line is forgotten of which nothing came: entries of it that are still in the outbox are sent again."""


class RedisSession:
    """`start()` it once, `close()` it in any case."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._servers = servers_of(context.settings, context.limits, context.clock)
        self._life = SessionLife("redis-sink", "the sink's Redis", self._servers.close)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """Find the servers, and look at the stream. Raises NotConnected or Refused; then nothing is left to close."""
        try:
            await self._life.begin(self._start())
        except Unusable as error:
            raise named(error, self._context.settings) from None

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`."""
        await self._life.run(self._publish(batch, receipts), "append")

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._life.ended()

    async def close(self) -> None:
        """See `Session.close`."""
        await self._life.close()

    async def _start(self) -> None:
        await self._servers.open()
        await self._look()
        self._life.watch(self._watch())

    async def _look(self) -> None:
        """At what can be known before the first message. Raises Refused: the key of the stream holds something else."""
        stream = self._context.streams.fixed
        if stream is not None:
            client, endpoint = self._servers.of(stream)
            async with conversation(endpoint):
                kind: object = await client.type(stream)
            if kind not in {b"stream", b"none"}:
                raise Refused(
                    f"{endpoint.title}: the key {stream.decode()} holds something else than a stream",
                    "name another one in BRIDGE_SINK_REDIS_STREAM",
                )

    async def _watch(self) -> None:
        self._life.end(await self._servers.lost())

    async def _publish(self, batch: Batch, receipts: Receipts) -> None:
        parts: dict[bytes, list[int]] = {}
        stream_of = self._context.streams.of_message
        for index, message in enumerate(batch.messages):
            parts.setdefault(stream_of(message), []).append(index)
        placed = list(places(batch, self._context.ledger))
        appending = [
            asyncio.create_task(self._append(stream, indices, batch, placed, receipts), name="append-part")
            for stream, indices in parts.items()
        ]
        try:
            results = await asyncio.gather(*appending, return_exceptions=True)
        finally:
            await end(appending)
        for result in results:
            if isinstance(result, NotConnected):
                self._life.end(str(result))
                raise self._life.ended_error()
            if isinstance(result, BaseException):
                raise result

    async def _append(
        self, stream: bytes, indices: Sequence[int], batch: Batch, placed: Sequence[Place], receipts: Receipts
    ) -> None:
        """The messages of one stream, in their order."""
        mine = [placed[index] for index in indices]
        passed = self._context.passed_over(stream, mine)
        maxlen = self._context.settings.sink_redis_maxlen
        arguments: list[Word] = ["" if maxlen is None else maxlen, KEEP_SECONDS, len(passed)]
        for place in passed:
            arguments += place
        for index in indices:
            fields = fields_of(batch.messages[index])
            arguments += (*placed[index], len(fields), *fields)
        async with self._turns:
            try:
                count, failure = await append(*self._servers.of(stream), stream, arguments)
            except Refused as error:
                count, failure = 0, str(named(error, self._context.settings))
        self._context.done(stream, mine[:count], passed if count else ())
        receipts.acked(indices[:count])
        if count < len(indices):
            self._context.refused(stream, mine[count:])
            alone = failure.startswith(OTHER_TYPE) and self._context.streams.fixed is None
            receipts.refused(dict.fromkeys(indices[count:], _words(failure)), alone=alone)


def _words(failure: str) -> str:
    """Of an error, without what may be a key."""
    if failure.startswith(OTHER_TYPE):
        return "the key of the stream, or of its memory, holds something else (WRONGTYPE)"
    if failure.startswith("OOM"):
        return "the sink's Redis is at its maxmemory (OOM)"
    return failure
