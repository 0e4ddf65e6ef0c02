"""The deadline ledger of one shard: typed calls of its atomic scripts (`lua/`), one method each.

Guarantees: each call is atomic in Redis; a call of an epoch that is over changes nothing and raises Fenced. Calls are
not retried: a NotConnected leaves open whether the call happened, and the caller must repeat it with the same sequence
number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import msgpack
from redis.exceptions import RedisError

from bridge.errors import NotConnected
from bridge.limits import LedgerLimits
from bridge.redis.ledger.roster import Roster
from bridge.redis.ledger.runner import Runner, packed_words
from bridge.redis.protocol.anchor import Measured
from bridge.redis.protocol.budget import Portion
from bridge.redis.protocol.calls import (
    Applied,
    Argument,
    Batch,
    Capture,
    Captured,
    Claim,
    Held,
    Lease,
    Settled,
    State,
    StreamEntry,
    Touch,
    Touched,
    Upcoming,
)
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.errors import translated


class Ledger:
    """See the module. Its keys, and the users', are on one server."""

    def __init__(self, commands: Commands, names: Names, limits: LedgerLimits, others: Sequence[Names] = ()) -> None:
        """`others`: those of the other shards on the same server."""
        self.commands = self._commands = commands
        """To its server."""
        self._names = names
        self._limits = limits
        self._others = others
        self._runner = Runner(commands)
        self._asked = 0
        """How often the lease was asked for: each boundary has another name."""
        self._entries, self._keys = Portion(limits.reply_bytes, first=4), Portion(limits.reply_bytes, first=16)
        """Portions of the outbox, and of everything that is listed by name."""
        self.roster = Roster(self._runner, names)
        """That of all bridges, if this server has its keys."""

    async def has_able_standby(self, instance: str) -> bool:
        """Whether another bridge than `instance` stands by, and reaches its broker. It has just said so."""
        return await self._noted(b"able", instance) is not None

    async def has_claimant(self, instance: str) -> bool:
        """Whether a bridge other than `instance` could go on hot, and may take the lease: it said so a moment ago."""
        claimant = await self._noted(b"claimant", instance)
        return claimant is not None and await self._listeners(self._names.alive_prefix + claimant) > 0

    async def _noted(self, role: bytes, instance: str) -> bytes | None:
        """The other bridge that the lease notes in that role."""
        bridge, until = await self._commands.ask(b"HMGET", self._names.lease, role, role + b"_until")
        if not bridge or bridge == instance.encode() or not until or not until.isdigit():
            return None
        left = int(until) - await self.now_ms()
        return cast("bytes", bridge) if 0 < left <= self._limits.lease_ms else None  # more: the clock was set back

    async def place(self) -> bytes:
        """How far the holder of the lease has handled the stream, as stored last."""
        return cast("bytes | None", await self._commands.ask(b"HGET", self._names.lease, b"place")) or b""

    async def listeners(self) -> int:
        """How many bridges listen. The caller counts while it listens."""
        return await self._listeners(self._names.announcements)

    async def _listeners(self, channel: bytes) -> int:
        subcommand = "SHARDNUMSUB" if self._runner.clustered else "NUMSUB"
        _, count = await self._commands.ask(b"PUBSUB", subcommand, channel)
        return int(count)

    async def server(self) -> bytes:
        """What the server reports about itself in INFO."""
        return cast("bytes", await self._commands.ask(b"INFO", b"server"))

    # What changes it.

    async def acquire(self, claim: Claim) -> Lease | Held:
        """Take the lease, under a new fence, unless another bridge holds it."""
        names = self._names
        self._asked += 1
        boundary = names.boundary(claim.instance, self._asked)
        reply = await self._runner.run(
            "acquire",
            [names.lease, names.outbox, names.canary, names.deadlines, boundary, names.values],
            [
                *(claim.instance, self._limits.lease_ms, claim.shards),
                names.alive_prefix if claim.listens else b"",
                *("1" if claim.entitled else "", int(self._runner.clustered)),
                *("1" if claim.able else "" if claim.yields else "0", claim.fingerprint, self._noting(wanted=True)),
                names.announcements if claim.late else b"",
                "1" if claim.keeps_values else "",
                "1" if claim.hot else "" if claim.patient else "0",
            ],
        )
        if not reply[0]:
            return Held(reply[1].decode(errors="replace"), int(reply[2]), *reply[3:])
        _, fence, seen_ms, former, heard, audit, forgotten, place, gap_open, silent_ms, fingerprint, *held = reply
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
            *held,
        )

    async def release(self, fence: int, heard: int, place: bytes = b"", *, left: bool = False) -> None:
        """Let a standby take over at once, from `place`, up to which `heard` expirations were handled.

        `left`: any other bridge may take the lease, beyond its share as well.
        """
        await self._runner.run("release", [self._names.lease], [fence, heard, place, "1" if left else ""])

    async def distrust(self, fence: int) -> None:
        """Make the next epoch open with a gap: some notifications may be missing."""
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
                *(int(touch.audit), touch.canary, touch.void, touch.skip, int(self._runner.clustered)),
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
        """Read the position of the replication stream, and leave a mark there; None if Redis does not report it."""
        return Measured.of(await self._runner.run("measure", [self._names.lease, mark], [fence]))

    async def deadlines(self, keys: Sequence[bytes]) -> list[int | None]:
        """The entries of these keys; None for one that has none."""
        scores = await self._commands.ask(b"ZMSCORE", self._names.deadlines, *keys)
        return [None if score is None else int(float(score)) for score in scores]

    async def apply(self, batch: Batch) -> Applied | None:
        """Handle a batch of hints; None if it was applied before, and its reply was lost."""
        names = self._names
        packed = packed_words(batch.operations)
        reply = await self._runner.run(
            "apply",
            [
                *(names.deadlines, names.lease, names.outbox, batch.mark, names.moved, names.ended),
                *([] if batch.listed_ms is None else [names.values]),
            ],
            [
                *(batch.fence, batch.seq, batch.gap_start_ms, batch.heard, packed),
                *(int(self._runner.clustered), batch.place, names.announcements, self._limits.noted_keys, batch.room),
                *([] if batch.listed_ms is None else [batch.listed_ms]),
            ],
        )
        if reply == b"DONE":
            return None
        now_us, lowest, size, depth, *rest = reply
        state = _state(now_us, lowest, size, depth)
        first_recorded, value_bytes, repaired, values, behind = rest[11:] or (b"", 0, 0, 0, ())
        *counts, emptied, ahead, next_part, found, announced, forgotten, wrote = rest[:11]
        by_notification, by_sweep, recovered, ambiguous = counts
        return Applied(
            *(state, by_notification, by_sweep, recovered, ambiguous, bool(emptied)),
            *(ahead, next_part, found, bool(announced), forgotten, bool(wrote)),
            (b"%d-%d" % (batch.fence, batch.seq), pairs(wrote)) if isinstance(wrote, list) else None,
            *(int(first_recorded) if first_recorded else None, int(value_bytes), repaired, values),
            [(key, int(deadline)) for key, deadline in zip(behind[::2], behind[1::2], strict=True)],
        )

    async def adopt(self, fence: int, seq: int, number: int) -> int | str:
        """Adopt a part of another ledger on this node. Returns what is left there, or why nothing was taken."""
        names, other = self._names, self._names.of(number)
        keys = [names.lease, names.outbox, names.moved, names.dead, names.ended]
        arguments: list[Argument] = [fence, seq, number, other.key(b""), self._limits.adopted, self._limits.lease_ms]
        reply = await self._runner.run("adopt", keys, arguments)
        said = reply if isinstance(reply, bytes) else reply[0]
        return said.decode() if isinstance(said, bytes) else int(said)

    # Values.

    async def upcoming(
        self, after_ms: int, last: bytes, up_to_ms: int, limit: int, bounds: Sequence[int] = ()
    ) -> Upcoming:
        """The entries after that of the deadline and the key (empty: after all of that deadline), up to a deadline.

        Fewer than `limit`, if the keys are long. Also how many there are, up to each of `bounds`.
        """
        limit = self._keys.of(limit)
        packed = packed_words([str(bound) for bound in bounds])
        arguments: list[Argument] = [after_ms, last, up_to_ms, limit, packed]
        flat, following, counts = await self._runner.run("upcoming", [self._names.deadlines], arguments)
        words = iter(flat)
        entries = [(key, int(float(deadline))) for key, deadline in zip(words, words, strict=True)]
        self._keys.took(len(entries), sum(len(key) for key, _ in entries))
        return Upcoming(entries, int(float(following)) if following else None, counts)

    async def capture(self, capture: Capture) -> Captured:
        """Read the values of keys, and hold them. Raises NotConnected, Refused or Fenced."""
        names = self._names
        flat = [word for key, deadline_ms in capture.asked for word in (key, b"%d" % deadline_ms)]
        declared = [key for key, _ in capture.asked] if capture.declare else []
        sizes, changing, full, repaired, values, value_bytes = await self._runner.run(
            "capture",
            [names.lease, names.deadlines, names.values, *declared],
            [
                *(capture.fence, capture.most, capture.room, capture.limit, int(capture.fields)),
                packed_words(flat),
            ],
            caching=capture.tracked,
        )
        changing = [number - 1 for number in changing]
        return Captured(sizes, changing, bool(full), repaired, values, int(value_bytes))

    # Its outbox.

    async def entries(self, after: bytes, limit: int) -> tuple[list[StreamEntry], bool]:
        """Entries of the outbox after the id `after`: ids and fields; and whether there may be more.

        Fewer than `limit`, if they are large.
        """
        count = self._entries.of(limit)
        with self._listing(self._entries):
            reply = await self._commands.ask(b"XRANGE", self._names.outbox, b"(" + after, b"+", b"COUNT", count)
        entries: list[StreamEntry] = [(entry_id, pairs(flat)) for entry_id, flat in reply]
        self._entries.took(len(entries), sum(len(value) for _, fields in entries for value in fields.values()))
        return entries, len(entries) >= count

    async def entry(self, entry_id: bytes) -> list[StreamEntry]:
        """The entry of the outbox with this id; nothing if it is gone."""
        reply = await self._commands.ask(b"XRANGE", self._names.outbox, entry_id, entry_id)
        return [(found, pairs(flat)) for found, flat in reply]

    async def last_entry(self) -> tuple[int, int]:
        """The id of the last entry that was ever written, as fence and sequence number; zeros if there is none."""
        (reply,) = await self._commands.answers([(b"XINFO", b"STREAM", self._names.outbox)])
        if isinstance(reply, RedisError):
            if str(reply) == "no such key":
                return 0, 0
            raise translated(self._commands.endpoint, reply) from reply
        fence, _, seq = pairs(reply)[b"last-generated-id"].decode().partition("-")
        return int(fence), int(seq)

    async def settle(self, arguments: Sequence[Argument]) -> Settled:
        """Remove entries from the outbox, store their dead letters."""
        names = self._names
        depth, dead, left = await self._runner.run("settle", [names.outbox, names.lease, names.dead], arguments)
        return Settled(depth, dead, None if left == b"" else int(left))

    # Entries of other nodes' ledgers, in a cluster: they wait in `…:moved` until they are placed.

    async def moved(self, start: int, count: int) -> list[tuple[bytes, int]]:
        """Entries to place, from that rank on: keys and deadlines. Fewer, if the keys are long."""
        count = self._keys.of(count)
        with self._listing(self._keys):
            words = (b"ZRANGE", self._names.moved, start, start + count - 1, b"WITHSCORES")
            found = pairs(await self._commands.ask(*words))
        entries = [(key, float(score)) for key, score in found.items()]
        self._keys.took(len(entries), sum(len(key) for key, _ in entries))
        if foreign := [key for key, deadline in entries if not deadline.is_integer() or deadline <= 0]:
            await self.placed(foreign)  # another program has written them: there is nothing to place
        return [(key, int(deadline)) for key, deadline in entries if key not in foreign]

    async def placed(self, keys: Sequence[bytes]) -> None:
        """Remove these entries: they are placed elsewhere."""
        await self._commands.ask(b"ZREM", self._names.moved, *keys)

    # The keyspace, to reconcile the ledger with it.

    async def scan(self, cursor: int, match: bytes, count: int) -> tuple[int, list[bytes]]:
        """The next part of a SCAN of the keyspace. A smaller part, if keys are long."""
        count = self._keys.of(count)
        with self._listing(self._keys):
            following, keys = await self._commands.ask(b"SCAN", cursor, b"MATCH", match, b"COUNT", count)
        self._keys.took(len(keys), sum(map(len, keys)))
        return int(following), keys

    async def now_ms(self) -> int:
        """Redis's clock."""
        seconds, microseconds = await self._commands.ask(b"TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _noting(self, *, wanted: bool) -> int:
        """For how long ends of keys have to be noted from now on, in ms; 0 if that need not change."""
        return self._limits.noting_ms if wanted and self._runner.clustered else 0

    @contextmanager
    def _listing(self, portion: Portion) -> Iterator[None]:
        """A command whose reply may be too large to arrive."""
        try:
            yield
        except NotConnected:
            portion.failed()
            raise


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Fields and values, or members and scores, as Redis lists them."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _state(now_us: int, lowest: bytes, size: int, depth: int) -> State:
    return State(now_us, int(float(lowest)) if lowest else None, size, depth)


def announcement(payload: bytes) -> Announcement | None:
    """What a batch has announced; None if no bridge sent it."""
    try:
        mark, place, emptied, keys = msgpack.unpackb(payload, raw=True)
        at = Place.parse(place)
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException):
        return None
    return None if at is None else Announcement(mark, at, bool(emptied), keys)
