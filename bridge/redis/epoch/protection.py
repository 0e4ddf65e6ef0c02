"""Protects the bridge's own keys, where Redis may evict any key and can be told to spare some (BLESS, Redis ≥ 8.12).

A key that was deleted and made again has lost its protection, so all of them are blessed again and again. One that is
evicted in between is noticed like any other loss of it: the epoch ends, and the next one reconciles.
"""

from collections.abc import Coroutine, Sequence
from typing import NoReturn

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.clock import Clock
from bridge.limits import SourceLimits
from bridge.redis.epoch.shard import Shard
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.server import inspect
from bridge.telemetry.shard import ShardTelemetry


def protecting(shard: Shard, primary: Primary) -> dict[str, Coroutine[object, object, None]]:
    """The tasks to run beside an epoch, by name."""
    runtime = shard.runtime
    limits, clock = runtime.limits.source, runtime.clock
    keys = [*own_keys(shard.names), *([shard.names.fields] if runtime.settings.fields else [])]
    protection = Protection(primary.client, primary.endpoint, keys, limits, clock, shard.telemetry)
    return {"protection": protection.run()}


class Protection:
    """See the module."""

    def __init__(
        self,
        client: Redis,
        endpoint: Endpoint,
        keys: Sequence[bytes],
        limits: SourceLimits,
        clock: Clock,
        telemetry: ShardTelemetry,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._keys = keys
        self._limits = limits
        self._clock = clock
        self._telemetry = telemetry

    async def run(self) -> NoReturn:
        """Run for as long as the epoch goes on: the policy may change. Raises NotConnected or Refused."""
        warned = False
        while True:
            server = await inspect(self._client, self._endpoint)
            if not (server.evicts_all and server.blesses):
                await self._clock.sleep(self._limits.eviction_check)
                continue
            denied = await self.bless()
            if denied and not warned:
                self._telemetry.ledger_endangered(server.eviction, f"let the bridge's user use +bless|set ({denied})")
            warned = bool(denied)
            await self._clock.sleep(self._limits.bless)

    async def bless(self) -> str:
        """Protect the keys that exist. Returns why Redis does not allow it, else ''."""
        async with conversation(self._endpoint):
            pipeline = self._client.pipeline(transaction=False)
            for key in self._keys:
                pipeline.execute_command("BLESS", "SET", key, "NO-EVICT")
            answers = await replies(pipeline, but=ResponseError)
        return next((str(answer) for answer in answers if _denied(answer)), "")


def own_keys(names: Names) -> Sequence[bytes]:
    """All keys that it keeps for longer. Not the indexes of hashes' fields: a scan makes them anew."""
    shard = (
        names.lease,
        names.deadlines,
        names.outbox,
        names.dead,
        names.moved,
        names.ended,
        names.values,
        names.fields,
    )
    return (*shard, names.shards, names.members, names.watermarks)


def _denied(answer: object) -> bool:
    """Whether that is an error other than a missing key."""
    return isinstance(answer, ResponseError) and "no such key" not in str(answer)
