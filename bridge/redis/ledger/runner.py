"""Runs the scripts (`lua/`) on one server, by their names.

Guarantees: a script runs once, or its caller gets an error. Does not retry what may have run: NotConnected leaves that
open.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, MasterDownError, NoScriptError

from bridge.redis.ledger.assembly import script
from bridge.redis.protocol.calls import Argument
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import CLUSTER, Endpoint


@cache
def digest(name: str) -> str:
    """By what Redis knows the script of that name."""
    return hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest()


class Runner:
    """See the module."""

    def __init__(self, client: Redis, endpoint: Endpoint) -> None:
        self.clustered = endpoint.finder == CLUSTER
        """Whether the server is a node of a cluster."""
        self._client = client
        self._endpoint = endpoint

    async def run(self, name: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - a reply's shape is its script's
        """The script's reply. Raises NotConnected, Refused or Fenced."""
        call = self._asking if self.clustered else self._call
        async with conversation(self._endpoint):
            while True:
                try:
                    return await call(name, keys, arguments)
                except NoScriptError:  # also where it was flushed between the two commands
                    await self._client.script_load(script(name))
                except ClusterDownError as error:
                    if not self.clustered or isinstance(error, MasterDownError):
                        raise
                    # It did not run. What is heard meanwhile is kept.
                    await self._endpoint.clock.sleep(self._endpoint.limits.cluster_down)

    async def _call(self, name: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> object:
        return await self._client.evalsha(digest(name), len(keys), *keys, *arguments)

    async def _asking(self, name: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> object:
        """With the right to read keys of slots that are on their way to here."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.evalsha(digest(name), len(keys), *keys, *arguments)
        _, reply = await replies(pipeline)
        return reply
