"""The deadline ledger of one shard: typed calls of its atomic scripts (`lua/`), one method each.

Guarantees: each call is atomic in Redis; a call of an epoch that is over changes nothing and raises Fenced. Does not
retry: a NotConnected leaves open whether the call happened, and the caller must ask again with the same sequence
number.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import msgpack
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.errors import NotConnected
from bridge.limits import LedgerLimits
from bridge.redis.ledger.roster import Roster
from bridge.redis.ledger.runner import Runner
from bridge.redis.protocol.anchor import Measured
from bridge.redis.protocol.budget import Portion
from bridge.redis.protocol.calls import Applied, Argument, Batch, Claim, Held, Lease, State, Touch, Touched
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.server import now_ms


class Ledger:
    """See the module. Its keys, and the users', are on one server."""

    def __init__(
        self, client: Redis, endpoint: Endpoint, names: Names, limits: LedgerLimits, others: Sequence[Names] = ()
    ) -> None:
        """`others`: those of the other shards on the same server."""
        self._client = client
        self._endpoint = endpoint
        self._names = names
        self._limits = limits
        self._others = others
        self._runner = Runner(client, endpoint)
        self._asked = 0
        """How often the lease was asked for: a boundary's name is used once."""
        self._entries, self._keys = Portion(limits.reply_bytes, first=4), Portion(limits.reply_bytes, first=16)
        """Of the outbox; of all that is listed by name."""
        self.roster = Roster(self._runner, names)
        """Of all bridges, where this server has its keys."""

    async def has_able_standby(self, instance: str) -> bool:
        """Whether a bridge other than `instance` stands by, and reaches its broker: it has said so a moment ago."""
        async with conversation(self._endpoint):
            bridge, until = await self._client.hmget(self._names.lease, "able", "able_until")
        if not bridge or bridge == instance.encode() or not until or not until.isdigit():
            return False
        return int(until) > await self.now_ms()

    async def listeners(self) -> int:
        """How many bridges listen, and so could take over without a gap; the caller is one of them while it listens."""
        subcommand = "SHARDNUMSUB" if self._runner.clustered else "NUMSUB"
        async with conversation(self._endpoint):
            _, count = await self._client.execute_command("PUBSUB", subcommand, self._names.announcements)  # type: ignore[no-untyped-call]
        return int(count)

    # What changes it.

    async def acquire(self, claim: Claim) -> Lease | Held:
        """Take the lease, under a new fence, unless another bridge holds it."""
        names = self._names
        self._asked += 1
        boundary = names.boundary(claim.instance, self._asked)
        reply = await self._runner.run(
            "acquire",
            [names.lease, names.outbox, names.canary, names.deadlines, boundary],
            [
                *(claim.instance, self._limits.lease_ms, claim.shards),
                names.alive_prefix if claim.listens else b"",
                *("1" if claim.entitled else "", int(self._runner.clustered)),
                *("1" if claim.able else "" if claim.yields else "0", claim.fingerprint, self._noting(wanted=True)),
            ],
        )
        if not reply[0]:
            return Held(reply[1].decode(errors="replace"), int(reply[2]), *reply[3:])
        _, fence, seen_ms, former, heard, audit, forgotten, place, gap_open, silent_ms, fingerprint = reply
        return Lease(
            int(fence),
            int(seen_ms) if seen_ms else None,
            None if former is None else former.decode(errors="replace"),
            int(heard),
            audit.decode(errors="replace"),
            int(forgotten),
            place,
            gap_open != b"0",
            boundary,
            None if silent_ms == b"" else int(silent_ms),
            fingerprint,
        )

    async def release(self, fence: int, heard: int, place: bytes = b"", *, left: bool = False) -> int:
        """Let a standby take over at once, from `place`, up to which `heard` expirations were handled.

        `left`: any other bridge may take it, whatever its share. How many bridges listen, and so can take over without
        a gap; the caller is one of them while it listens.
        """
        names = self._names
        arguments: list[Argument] = [fence, heard, place, "1" if left else "", names.announcements]
        return int(await self._runner.run("release", [names.lease], [*arguments, int(self._runner.clustered)]))

    async def distrust(self, fence: int) -> None:
        """Let the next epoch open with a gap: what was notified may not be all that happened."""
        await self._runner.run("distrust", [self._names.lease], [fence])

    async def touch(self, touch: Touch) -> Touched:
        """Touch what is due, or the next part of a walk, and extend the lease."""
        names = self._names
        reply = await self._runner.run(
            "touch",
            [
                *(names.deadlines, names.lease, touch.mark, names.dead, names.canary, names.moved),
                *(key for other in self._others for key in (other.lease, other.canary)),
            ],
            [
                *(touch.fence, "due" if touch.walk is None else "walk", touch.limit, touch.room, touch.walk or b"0"),
                *(self._limits.lease_ms, touch.heard),
                *("" if touch.handled_ms is None else touch.handled_ms, touch.reading),
                *(int(touch.count), touch.canary, touch.void, touch.skip, int(self._runner.clustered)),
                *(touch.place, int(touch.gap_open), self._noting(wanted=touch.moving), int(touch.measure)),
            ],
        )
        now_us, cursor, lowest, size, depth, dead, flat, gone, counters, moved, measured = reply
        complete = touch.walk is not None or cursor == b"0"
        fields = iter(flat)
        quadruples = list(zip(fields, fields, fields, fields, strict=True))
        return Touched(
            *(_state(now_us, lowest, size, depth), cursor, quadruples, complete, dead, bool(gone), counters, moved),
            Measured.of(measured),
        )

    async def measure(self, fence: int, mark: bytes) -> Measured | None:
        """Where the replication stream is, and leave a mark there; None where Redis does not say."""
        return Measured.of(await self._runner.run("measure", [self._names.lease, mark], [fence]))

    async def deadlines(self, keys: Sequence[bytes]) -> list[int | None]:
        """The entries of these keys; None for one that has none."""
        async with conversation(self._endpoint):
            scores = await self._client.zmscore(self._names.deadlines, cast("list[str]", list(keys)))
        return [None if score is None else int(score) for score in scores]

    async def apply(self, batch: Batch) -> Applied | None:
        """Handle a batch of hints; None where it was applied before and its reply is lost."""
        names = self._names
        packed = cast("bytes", msgpack.packb(batch.operations, use_bin_type=False))  # Redis's cmsgpack knows no binary
        reply = await self._runner.run(
            "apply",
            [names.deadlines, names.lease, names.outbox, batch.mark, names.moved, names.ended],
            [
                *(batch.fence, batch.seq, batch.gap_start_ms, batch.heard, packed),
                *(int(self._runner.clustered), batch.place, names.announcements, self._limits.noted_keys),
            ],
        )
        if reply == b"DONE":
            return None
        now_us, lowest, size, depth, *counts, emptied, ahead, next_part, found, announced, forgotten = reply
        state = _state(now_us, lowest, size, depth)
        by_notification, by_sweep, recovered, ambiguous = counts
        return Applied(
            *(state, by_notification, by_sweep, recovered, ambiguous, bool(emptied)),
            *(ahead, next_part, found, bool(announced), forgotten),
        )

    async def adopt(self, fence: int, seq: int, number: int) -> int | str:
        """Take in a part of another ledger on this node of a cluster. What is left there, or why nothing was taken."""
        names, other = self._names, self._names.of(number)
        keys = [names.lease, names.outbox, names.moved, names.dead, names.ended]
        arguments: list[Argument] = [fence, seq, number, other.key(b""), self._limits.adopted, self._limits.lease_ms]
        reply = await self._runner.run("adopt", keys, arguments)
        said = reply if isinstance(reply, bytes) else reply[0]
        return said.decode() if isinstance(said, bytes) else int(said)

    # Its outbox.

    async def entries(self, after: bytes, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the outbox behind the id `after`: ids and fields. Fewer than `limit`, where they are large."""
        count = self._entries.of(limit)
        async with self._listing(self._entries):
            reply = await self._client.xrange(self._names.outbox, min=b"(" + after, count=count)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
        self._entries.took(len(entries), sum(len(value) for _, fields in entries for value in fields.values()))
        return entries

    async def last_entry(self) -> tuple[int, int]:
        """The id of the last entry that was ever written, as fence and sequence number; zeros where there is none."""
        async with conversation(self._endpoint):
            try:
                info = await self._client.xinfo_stream(self._names.outbox)
            except ResponseError as error:
                if str(error) != "no such key":
                    raise
                return 0, 0
        fence, _, seq = info["last-generated-id"].decode().partition("-")
        return int(fence), int(seq)

    async def settle(self, arguments: Sequence[Argument]) -> tuple[int, int]:
        """Remove entries from the outbox, store their dead letters; the depth of the outbox and of the dead letters."""
        names = self._names
        depth, dead = await self._runner.run("settle", [names.outbox, names.lease, names.dead], arguments)
        return depth, dead

    # What other nodes' ledgers had, in a cluster: it waits in `…:moved` until it is placed.

    async def moved(self, start: int, count: int) -> list[tuple[bytes, int]]:
        """Entries that are to be placed, from that rank on: keys and deadlines. Fewer, where the keys are long."""
        count = self._keys.of(count)
        async with self._listing(self._keys):
            found = await self._client.zrange(self._names.moved, start, start + count - 1, withscores=True)
        entries = cast("list[tuple[bytes, float]]", found)
        self._keys.took(len(entries), sum(len(key) for key, _ in entries))
        if foreign := [key for key, deadline in entries if not deadline.is_integer() or deadline <= 0]:
            await self.placed(foreign)  # another program has written them: there is nothing to place
        return [(key, int(deadline)) for key, deadline in entries if key not in foreign]

    async def placed(self, keys: Sequence[bytes]) -> None:
        """These are placed elsewhere."""
        async with conversation(self._endpoint):
            await self._client.zrem(self._names.moved, *keys)

    # The keyspace that it is reconciled with.

    async def scan(self, cursor: int, match: bytes, count: int) -> tuple[int, list[bytes]]:
        """The next part of a SCAN of the keyspace. A smaller one, where keys are long."""
        async with self._listing(self._keys):
            reply = await self._client.scan(cursor, match=match, count=self._keys.of(count))
        following, keys = cast("tuple[int, list[bytes]]", reply)
        self._keys.took(len(keys), sum(map(len, keys)))
        return int(following), keys

    async def now_ms(self) -> int:
        """Redis's clock."""
        return await now_ms(self._client, self._endpoint)

    def _noting(self, *, wanted: bool) -> int:
        """For how long ends of keys are to be noted from now on, in ms; 0: no longer than they are anyway."""
        return self._limits.noting_ms if wanted and self._runner.clustered else 0

    @asynccontextmanager
    async def _listing(self, portion: Portion) -> AsyncIterator[None]:
        """A command whose reply may be too large to arrive."""
        try:
            async with conversation(self._endpoint):
                yield
        except NotConnected:
            portion.failed()
            raise


def _state(now_us: int, lowest: bytes, size: int, depth: int) -> State:
    return State(now_us, int(float(lowest)) if lowest else None, size, depth)


def announcement(payload: bytes) -> Announcement | None:
    """What a batch has announced; None where it is not of our making."""
    try:
        mark, place, emptied, keys = msgpack.unpackb(payload, raw=True)
        at = Place.parse(place)
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException):
        return None
    return None if at is None else Announcement(mark, at, bool(emptied), keys)
