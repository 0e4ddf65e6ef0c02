"""Has Redis keep a replication backlog, where it has no replica for which it would.

It asks for a full synchronisation, as a new replica does, and leaves before that begins: Redis waits for some seconds
for more replicas (`repl-diskless-sync-delay`). The backlog is there at once. Later it goes on as a replica that is in
step, and leaves: a backlog that no replica has used for `repl-backlog-ttl` is dropped.

Guarantees: no fork, and no data is sent. Where Redis would not wait, it asks for nothing.
"""

from typing import NoReturn, cast

import hiredis
from redis.asyncio import Redis

from bridge.clock import Clock
from bridge.errors import NotConnected, Refused
from bridge.limits import BacklogLimits
from bridge.redis.backlog.journal import Unfillable
from bridge.redis.backlog.serving import replication
from bridge.redis.backlog.session import RIGHT, opened
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.telemetry.shard import ShardTelemetry


class Keeper:
    """See the module."""

    def __init__(
        self, client: Redis, endpoint: Endpoint, limits: BacklogLimits, clock: Clock, telemetry: ShardTelemetry
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._limits = limits
        self._clock = clock
        self._telemetry = telemetry

    async def run(self) -> NoReturn:
        """As long as the epoch goes on. What cannot be kept is said, and tried again."""
        said = ""
        while True:
            try:
                async with self._clock.timeout(self._limits.fill):
                    await self.keep()
                said = ""
            except (Unfillable, NotConnected, Refused, TimeoutError) as error:
                reason = str(error) or "no answer in time"
                if reason != said:
                    self._telemetry.backlog_refused(reason)
                said = reason
            await self._clock.sleep(await self._period())

    async def _period(self) -> float:
        """Seconds until it is to be used again: several times before Redis drops it (`repl-backlog-ttl`)."""
        try:
            async with conversation(self._endpoint):
                found = cast("dict[str, str]", await self._client.config_get("repl-backlog-ttl"))
            seconds = float(found.get("repl-backlog-ttl", 0))
        except (NotConnected, Refused, ValueError):
            seconds = 0.0
        return min(self._limits.keep, seconds / 3) if seconds else self._limits.keep

    async def keep(self) -> None:
        """See to it that there is one, and goes on to be. Raises Unfillable, NotConnected or Refused."""
        info = await replication(self._client, self._endpoint)
        if int(str(info.get("connected_slaves", 0))):
            return
        if info.get("repl_backlog_active") == 1:
            replid, offset = str(info["master_replid"]), int(str(info["master_repl_offset"]))
            first = int(str(info["repl_backlog_first_byte_offset"]))
            await self._attach(replid.encode(), max(offset + 1, first))
            return
        if not await self._waits():
            raise Unfillable("Redis would begin a synchronisation at once (repl-diskless-sync no, or without a delay)")
        await self._create()

    async def _attach(self, replid: bytes, offset: int) -> None:
        async with opened(self._endpoint, self._limits) as session:
            await session.require_capability()
            answer = await session.ask(b"PSYNC", replid, b"%d" % offset)
            if isinstance(answer, hiredis.ReplyError):
                raise Unfillable(f"{RIGHT}, or Redis does not allow it: {str(answer)[:100]}")

    async def _create(self) -> None:
        async with opened(self._endpoint, self._limits) as session:
            await session.require_capability()
            session.send(b"PSYNC", b"?", b"-1")
            while (await replication(self._client, self._endpoint)).get("repl_backlog_active") != 1:
                await self._clock.sleep(self._limits.keep_poll)

    async def _waits(self) -> bool:
        """Whether Redis waits before a full synchronisation begins."""
        async with conversation(self._endpoint):
            found = cast("dict[str, str]", await self._client.config_get("repl-diskless-sync*"))
        delay = found.get("repl-diskless-sync-delay", "")
        return found.get("repl-diskless-sync") == "yes" and delay.isdigit() and int(delay) > self._limits.fill
