"""The field ledger of one shard: typed calls of its script, and what is listed for it.

Guarantees: those of `scripts.py`.
"""

from collections.abc import Callable
from typing import Any

from redis.exceptions import AskError, RedisError, ResponseError, TryAgainError

from bridge.limits import FieldLimits
from bridge.redis.ledger.runner import Runner, packed_words
from bridge.redis.protocol.calls import Argument
from bridge.redis.protocol.field_calls import Ambiguous, Look, Looked
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.errors import translated
from bridge.redis.wire.exchange import Command


class FieldLedger:
    """See the module."""

    def __init__(self, commands: Commands, names: Names, limits: FieldLimits) -> None:
        self._commands = commands
        self._names = names
        self._limits = limits
        self._runner = Runner(commands)

    async def look(self, look: Look) -> Looked | None:
        """Read hashes, and claim what has expired; None if the sequence number was used before."""
        names, limits = self._names, self._limits
        hints: list[object] = []
        for key, reasons in look.hints:
            hints += (key, reasons.why, reasons.names())
        packed = packed_words(hints)
        reply = await self._runner.run(
            "fields",
            [names.fields, names.lease, names.outbox, look.mark, names.dead],
            [
                *(look.fence, look.seq, look.gap_start_ms, names.field_prefix),
                *(limits.most, limits.read, limits.read_bytes, look.due, packed),
            ],
        )
        if reply == b"DONE":
            return None
        now_us, depth, lowest, hashes, handled, by_notification, by_sweep, ambiguous, *lists = reply
        return Looked(
            *(now_us, depth, int(float(lowest)) if lowest else None, hashes, handled, by_notification, by_sweep),
            Ambiguous(*ambiguous),
            *lists,
        )

    async def adopt(self, fence: int, number: int) -> tuple[list[bytes], int, int]:
        """Adopt a part of the fields of another ledger on this node.

        Returns the hashes, how many are left, and how many keys of both ledgers were something else.
        """
        names, limits = self._names, self._limits
        arguments: list[Argument] = [fence, names.field_prefix, names.of(number).key(b""), limits.adopted]
        hashes, left, repaired = await self._runner.run("adopt_fields", [names.fields, names.lease], arguments)
        return hashes, left, repaired

    async def known(self, cursor: int) -> tuple[int, list[bytes]] | None:
        """The next part of the hashes in the ledger, from a cursor, which begins and ends with 0.

        None if something else is in its place; `look` repairs that.
        """
        words = (b"ZSCAN", self._names.fields, cursor, b"COUNT", self._limits.listed)
        found = await self._unless(_is_of_another_type, words)
        return None if found is None else (int(found[0]), found[1][::2])

    async def hashes(self, cursor: int, match: bytes) -> tuple[int, list[bytes]]:
        """The next part of the hashes in the keyspace, likewise."""
        count = self._limits.scanned
        words = (b"SCAN", cursor, b"MATCH", match, b"COUNT", count, b"TYPE", b"HASH")
        following, keys = await self._commands.ask(*words)
        return int(following), keys

    async def has_deadlines(self, key: bytes) -> bool:
        """Whether any field of a hash has one, for any number of fields. The key may have become another type."""
        cursor = 0
        while True:
            found = await self._of_hash(b"HSCAN", key, cursor, b"COUNT", self._limits.most, b"NOVALUES")
            if found is None:
                return False
            following, names = found
            times = await self._of_hash(b"HPEXPIRETIME", key, b"FIELDS", len(names), *names) if names else ()
            if any(time > 0 for time in times or ()):
                return True
            if not (cursor := int(following)):
                return False

    async def _of_hash(self, *words: Argument) -> Any:  # noqa: ANN401 - a reply's shape is its command's
        """What Redis says about a hash; None if the key is no hash, or in a slot that is elsewhere."""
        return await self._unless(_is_no_hash_here, words)

    async def _unless(self, excused: Callable[[RedisError], bool], words: Command) -> Any:  # noqa: ANN401 - likewise
        """The reply to a command; None if it is an excused error. Raises any other."""
        (reply,) = await self._commands.answers([words])
        if not isinstance(reply, RedisError):
            return reply
        if excused(reply):
            return None
        raise translated(self._commands.endpoint, reply) from reply


def _is_of_another_type(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")


def _is_no_hash_here(error: RedisError) -> bool:
    return isinstance(error, AskError | TryAgainError) or _is_of_another_type(error)  # MOVED is an AskError
