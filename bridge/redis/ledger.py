"""The deadline ledger: typed calls of its atomic scripts (`lua/`), one method each.

Guarantees: each call is atomic in Redis; a call of an epoch that is over changes nothing and raises Fenced. Does not
retry: a NotConnected leaves open whether the call happened, and the caller must ask again with the same sequence
number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from bridge.redis.connection import Endpoint, conversation
from bridge.redis.names import Names

LEASE_MS = 5_000
"""How long a lease is valid without a sign of life. A standby takes over at the latest this long after a crash."""

Argument = bytes | str | int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change the ledger."""

    fence: int
    seen_ms: int | None
    """Up to when the former epoch had handled every notification; None for the first epoch of all."""
    existed: bool
    """False: first start, or the lease was lost (flushed, evicted, deleted)."""
    recovered: int = 0
    ambiguous: int = 0
    """Counted by the former epoch, if it ended before its gap was closed."""


@dataclass(frozen=True, slots=True)
class Held:
    """The lease is held by another bridge."""

    holder: str
    remaining_ms: int


@dataclass(frozen=True, slots=True)
class State:
    """What every script says of the ledger after it."""

    now_us: int
    """Redis's clock, in microseconds."""
    lowest_ms: int | None
    """The first deadline in the ledger."""
    size: int
    depth: int
    """Expirations in the outbox."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What a touch saw."""

    state: State
    cursor: bytes
    """Where the walk goes on; `0` when it is through."""
    seen: Sequence[tuple[bytes, bytes, bytes, bytes]]
    """key, score, `gone` or `alive`, `1` (due) or `0`: the arguments of a resolve."""
    dead: int = 0
    """Dead letters kept."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What one batch did."""

    state: State
    by_notification: int
    by_sweep: int
    in_gap: int
    ambiguous: int
    emptied: bool
    ahead: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """One apply, kept until it is answered: sent again it is not applied again."""

    fence: int
    seq: int
    gap_start_ms: int
    mark: bytes
    operations: Sequence[bytes]


class Ledger:
    """The scripts of one shard."""

    def __init__(self, client: Redis, endpoint: Endpoint, names: Names) -> None:
        self._client = client
        self._endpoint = endpoint
        self._names = names
        self._scripts = {
            path.name: client.register_script(path.read_text())
            for path in files("bridge.redis").joinpath("lua").iterdir()
        }

    async def acquire(self, instance: str) -> Lease | Held:
        """Take the lease, under a new fence, unless another bridge holds it."""
        names = self._names
        reply = await self._call("acquire.lua", [names.lease, names.outbox], [instance, LEASE_MS])
        if not reply[0]:
            return Held(reply[1].decode(), int(reply[2]))
        seen_ms = int(reply[2]) if reply[2] else None
        return Lease(int(reply[1]), seen_ms, reply[3] is not None, int(reply[4]), int(reply[5]))

    async def release(self, fence: int) -> None:
        """Let a standby take over at once."""
        await self._call("release.lua", [self._names.lease], [fence])

    async def touch(  # noqa: PLR0913 - the script's arguments
        self, *, fence: int, mode: str, limit: int, cursor: bytes, mark: bytes, seen_ms: int | None
    ) -> Touched:
        """Touch what is `due`, or the next part of the `walk`, and extend the lease."""
        names = self._names
        seen = "" if seen_ms is None else seen_ms
        reply = await self._call(
            "touch.lua", [names.deadlines, names.lease, mark, names.dead], [fence, mode, limit, cursor, LEASE_MS, seen]
        )
        now_us, cursor, lowest, size, depth, dead, flat = reply
        fields = iter(flat)
        quadruples = list(zip(fields, fields, fields, fields, strict=True))
        return Touched(_state(now_us, lowest, size, depth), cursor, quadruples, dead)

    async def apply(self, batch: Batch) -> Applied | None:
        """Handle a batch of hints; None where it was applied before and its reply is lost."""
        names = self._names
        reply = await self._call(
            "apply.lua",
            [names.deadlines, names.lease, names.outbox, batch.mark],
            [batch.fence, batch.seq, batch.gap_start_ms, *batch.operations],
        )
        if reply == b"DONE":
            return None
        now_us, lowest, size, depth, by_notification, by_sweep, in_gap, ambiguous, emptied, ahead = reply
        return Applied(
            _state(now_us, lowest, size, depth), by_notification, by_sweep, in_gap, ambiguous, bool(emptied), ahead
        )

    async def settle(self, arguments: Sequence[Argument]) -> tuple[int, int]:
        """Remove entries from the outbox, store their dead letters; the depth of the outbox and of the dead letters."""
        names = self._names
        depth, dead = await self._call("settle.lua", [names.outbox, names.lease, names.dead], arguments)
        return depth, dead

    async def entries(self, after: bytes, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the outbox behind the id `after`: their ids and fields."""
        async with conversation(self._endpoint):
            reply = await self._client.xrange(self._names.outbox, min=b"(" + after, count=limit)
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)

    async def now_ms(self) -> int:
        """Redis's clock."""
        async with conversation(self._endpoint):
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def scan(self, cursor: int, match: bytes | None, count: int) -> tuple[int, list[bytes]]:
        """The next part of a SCAN of the keyspace."""
        async with conversation(self._endpoint):
            following, keys = await self._client.scan(cursor, match=match, count=count)
        return int(following), cast("list[bytes]", keys)

    async def _call(self, script: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - a reply's shape is its script's
        run: AsyncScript = self._scripts[script]
        async with conversation(self._endpoint):
            while True:
                try:
                    return await run(keys=keys, args=arguments)
                except NoScriptError:  # flushed again, between the client library's SCRIPT LOAD and its second EVALSHA
                    continue


def _state(now_us: int, lowest: bytes, size: int, depth: int) -> State:
    return State(now_us, int(float(lowest)) if lowest else None, size, depth)
