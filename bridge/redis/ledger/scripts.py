"""The deadline ledger: typed calls of its atomic scripts (`lua/`), one method each.

Guarantees: each call is atomic in Redis; a call of an epoch that is over changes nothing and raises Fenced. Does not
retry: a NotConnected leaves open whether the call happened, and the caller must ask again with the same sequence
number.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgpack
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ClusterDownError, MasterDownError, NoScriptError

from bridge.redis.ledger.assembly import names as names_of_scripts
from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.calls import Applied, Argument, Batch, Held, Lease, State, Touch, Touched
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.server import now_ms

CLUSTER_PAUSE = 0.05
"""Seconds before a cluster is asked again that is down for a moment, as while a replica is promoted anywhere in it."""
ADOPTED = 250
"""Entries of another ledger in one script."""
LEASE_MS = 5_000
"""How long a lease is valid without a sign of life. A standby takes over at the latest this long after a crash."""


class Ledger:
    """The scripts of one shard."""

    def __init__(self, client: Redis, endpoint: Endpoint, names: Names, others: Sequence[Names] = ()) -> None:
        """`others`: those of the other shards on the same server."""
        self._others = others
        self._client = client
        self._endpoint = endpoint
        self._clustered = endpoint.finder == CLUSTER
        self._names = names
        self._scripts = {name: client.register_script(script(name)) for name in names_of_scripts()}

    async def acquire(self, instance: str, shards: int = 1) -> Lease | Held:
        """Take the lease, under a new fence, unless another bridge holds it. It keeps how many shards there are."""
        names = self._names
        reply = await self._call("acquire", [names.lease, names.outbox, names.canary], [instance, LEASE_MS, shards])
        if not reply[0]:
            return Held(reply[1].decode(), int(reply[2]))
        former = None if reply[3] is None else reply[3].decode(errors="replace")
        audit = reply[5].decode(errors="replace")
        return Lease(int(reply[1]), int(reply[2]) if reply[2] else None, former, int(reply[4]), audit)

    async def agree(self, shards: int) -> int:
        """How many shards there are, for all bridges: `shards`, if nobody has said so before."""
        return int(await self._call("shards", [self._names.shards, self._names.first.lease], [shards]))

    async def sign_of_life(self, instance: str, life_ms: int) -> tuple[int, int]:
        """Count as alive for so long (0: no more). The place among those alive, and how many they are."""
        place, count = await self._call("members", [self._names.members], [instance, life_ms])
        return place, count

    async def exchange(self, watermarks: Sequence[tuple[str, str]]) -> tuple[int, dict[str, str]]:
        """Say up to when notifications were handled, in a cluster. Redis's clock, and what all bridges have said."""
        words = [word for watermark in watermarks for word in watermark]
        now_ms, flat = await self._call("seen", [self._names.seen], words)
        said = iter(word.decode(errors="replace") for word in flat)
        return now_ms, dict(zip(said, said, strict=True))

    async def release(self, fence: int, heard: int) -> None:
        """Let a standby take over at once, who is told how many notifications were handled."""
        await self._call("release", [self._names.lease], [fence, heard])

    async def touch(self, touch: Touch) -> Touched:
        """Touch what is due, or the next part of a walk, and extend the lease."""
        names = self._names
        reply = await self._call(
            "touch",
            [
                *(names.deadlines, names.lease, touch.mark, names.dead, names.canary, names.moved),
                *(key for other in self._others for key in (other.lease, other.canary)),
            ],
            [
                *(touch.fence, "due" if touch.walk is None else "walk", touch.limit, touch.walk or b"0"),
                *(LEASE_MS, touch.heard, "" if touch.handled_ms is None else touch.handled_ms, touch.reading),
                *(int(touch.count), touch.canary, touch.void, touch.skip, int(self._clustered)),
            ],
        )
        now_us, cursor, lowest, size, depth, dead, flat, gone, counters, moved = reply
        fields = iter(flat)
        quadruples = list(zip(fields, fields, fields, fields, strict=True))
        return Touched(_state(now_us, lowest, size, depth), cursor, quadruples, dead, bool(gone), counters, moved)

    async def apply(self, batch: Batch) -> Applied | None:
        """Handle a batch of hints; None where it was applied before and its reply is lost."""
        names = self._names
        reply = await self._call(
            "apply",
            [names.deadlines, names.lease, names.outbox, batch.mark, names.moved],
            [batch.fence, batch.seq, batch.gap_start_ms, batch.heard, _packed(batch.operations), int(self._clustered)],
        )
        if reply == b"DONE":
            return None
        now_us, lowest, size, depth, by_notification, by_sweep, recovered, ambiguous, emptied, *scanned = reply
        state = _state(now_us, lowest, size, depth)
        return Applied(state, by_notification, by_sweep, recovered, ambiguous, bool(emptied), *scanned)

    async def settle(self, arguments: Sequence[Argument]) -> tuple[int, int]:
        """Remove entries from the outbox, store their dead letters; the depth of the outbox and of the dead letters."""
        names = self._names
        depth, dead = await self._call("settle", [names.outbox, names.lease, names.dead], arguments)
        return depth, dead

    async def entries(self, after: bytes, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the outbox behind the id `after`: their ids and fields."""
        async with conversation(self._endpoint):
            reply = await self._client.xrange(self._names.outbox, min=b"(" + after, count=limit)
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)

    async def now_ms(self) -> int:
        """Redis's clock."""
        return await now_ms(self._client, self._endpoint)

    async def scan(self, cursor: int, match: bytes, count: int) -> tuple[int, list[bytes]]:
        """The next part of a SCAN of the keyspace."""
        async with conversation(self._endpoint):
            following, keys = await self._client.scan(cursor, match=match, count=count)
        return int(following), cast("list[bytes]", keys)

    async def adopt(self, fence: int, seq: int, number: int) -> int | str:
        """Take in a part of another ledger on this node of a cluster. What is left there, or why nothing was taken."""
        names, other = self._names, self._names.of(number)
        reply = await self._call(
            "adopt",
            [names.lease, names.outbox, names.moved, names.dead],
            [fence, seq, number, other.key(b""), ADOPTED, LEASE_MS],
        )
        said = reply if isinstance(reply, bytes) else reply[0]
        return said.decode() if isinstance(said, bytes) else int(said)

    async def moved(self, start: int, count: int) -> list[tuple[bytes, int]]:
        """Entries that are to be placed, from that rank on: keys and deadlines."""
        async with conversation(self._endpoint):
            found = await self._client.zrange(self._names.moved, start, start + count - 1, withscores=True)
        return [(key, int(deadline)) for key, deadline in cast("list[tuple[bytes, float]]", found)]

    async def placed(self, keys: Sequence[bytes]) -> None:
        """These are placed elsewhere."""
        async with conversation(self._endpoint):
            await self._client.zrem(self._names.moved, *keys)

    async def _call(self, name: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - a reply's shape is its script's
        run: AsyncScript = self._scripts[name]
        call = self._asking if self._clustered else _run
        async with conversation(self._endpoint):
            while True:
                try:
                    return await call(run, keys, arguments)
                except NoScriptError:  # flushed again, between the client library's SCRIPT LOAD and its second EVALSHA
                    continue
                except ClusterDownError as error:
                    if not self._clustered or isinstance(error, MasterDownError):
                        raise
                    await asyncio.sleep(CLUSTER_PAUSE)  # it did not run; what is heard meanwhile is kept

    async def _asking(self, script: AsyncScript, keys: Sequence[bytes], arguments: Sequence[Argument]) -> object:
        """Run it with the right to read keys of slots that are on their way to here."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            _, reply = await replies(pipeline)
        except NoScriptError:
            await self._client.script_load(script.script)
            raise
        return reply


async def _run(script: AsyncScript, keys: Sequence[bytes], arguments: Sequence[Argument]) -> object:
    return await script(keys=keys, args=arguments)


def _state(now_us: int, lowest: bytes, size: int, depth: int) -> State:
    return State(now_us, int(float(lowest)) if lowest else None, size, depth)


def _packed(operations: Sequence[bytes]) -> bytes:
    # Redis's cmsgpack knows no binary type.
    return cast("bytes", msgpack.packb(operations, use_bin_type=False))
