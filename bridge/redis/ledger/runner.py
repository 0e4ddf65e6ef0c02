"""Runs the scripts (`lua/`) on one server, by their names.

Guarantees: a script runs once, or its caller gets an error. A script that may have run is not retried: NotConnected
leaves open whether it did.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import msgpack
from redis.exceptions import ClusterDownError, MasterDownError, NoScriptError, RedisError

from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.calls import Argument
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import CLUSTER
from bridge.redis.wire.errors import translated

_PACKER = msgpack.Packer(use_bin_type=False)  # Redis's cmsgpack knows no binary
"""One for all, since each has a buffer of 256 KiB."""
_CACHING = (b"CLIENT", b"CACHING", b"YES")


@cache
def digest(name: str) -> bytes:
    """The digest by which Redis knows the script of that name."""
    return hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest().encode()


def packed_words(words: Sequence[object]) -> bytes:
    """A list, as a script unpacks it."""
    return cast("bytes", _PACKER.pack(words))


class Runner:
    """See the module."""

    def __init__(self, commands: Commands) -> None:
        self.clustered = commands.endpoint.finder == CLUSTER
        """Whether the server is a node of a cluster."""
        self._commands = commands

    async def run(
        self, name: str, keys: Sequence[bytes], arguments: Sequence[Argument], *, caching: bool = False
    ) -> Any:  # noqa: ANN401 - a reply's shape is its script's
        """The script's reply. `caching`: Redis tracks what it reads. Raises NotConnected, Refused or Fenced."""
        call = (b"EVALSHA", digest(name), len(keys), *keys, *arguments)
        # In a cluster with the right to read keys of arriving slots (ASKING). A connection can have only one of the
        # two for its next command.
        calls = [_CACHING, call] if caching else [(b"ASKING",), call] if self.clustered else [call]
        reply = _last_or_error(await self._commands.answers(calls))
        return await self._again(name, calls, reply) if isinstance(reply, RedisError) else reply

    async def _again(self, name: str, calls: Sequence[Sequence[Argument]], reply: object) -> object:
        """Try again: the script did not run, and `reply` says why."""
        endpoint = self._commands.endpoint
        clock, limits = endpoint.clock, endpoint.limits
        until = clock.monotonic() + limits.command
        while isinstance(reply, RedisError):
            down = self.clustered and isinstance(reply, ClusterDownError) and not isinstance(reply, MasterDownError)
            if clock.monotonic() >= until or not (down or isinstance(reply, NoScriptError)):
                raise translated(endpoint, reply) from reply
            if down:
                await clock.sleep(limits.cluster_down)  # what the bridge hears meanwhile is kept
            else:  # also if it was flushed between the two commands
                await self._commands.ask(b"SCRIPT", b"LOAD", script(name))
            reply = _last_or_error(await self._commands.answers(calls))
        return reply


def _last_or_error(replies: Sequence[object]) -> object:
    """The last reply, or the first error."""
    for reply in replies:
        if isinstance(reply, RedisError):
            return reply
    return replies[-1]
