"""`append.lua` on one server."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.errors import error_reply
from bridge.sinks.redis.entries import Word
from bridge.sinks.redis.keys import memory_of

OTHER_TYPE = "WRONGTYPE"
FULL = ("OOM", OTHER_TYPE)
"""Errors that concern a stream, or the moment, and not the connection."""


@cache
def text() -> str:
    """The script as it is sent to Redis."""
    return (files("bridge.sinks.redis") / "append.lua").read_text(encoding="utf-8")


@cache
def digest() -> str:
    """By what Redis knows it."""
    return hashlib.sha1(text().encode(), usedforsecurity=False).hexdigest()


async def append(client: Redis, endpoint: Endpoint, stream: bytes, arguments: Sequence[Word]) -> tuple[int, str]:
    """How many of the messages are in the stream now, and why the next one is not.

    Raises NotConnected: it may have run. Refused: it did not.
    """
    call = (digest(), 2, stream, memory_of(stream), *arguments)
    async with conversation(endpoint):
        while True:
            try:
                count, failure = await _call(client, call, asking=endpoint.finder == CLUSTER)
            except NoScriptError:
                await client.script_load(text())
            except ResponseError as error:
                if not str(error).startswith(FULL):
                    raise
                return 0, str(error)
            else:
                return int(count), _known(failure.decode(errors="replace"), endpoint)


async def may_append(client: Redis, endpoint: Endpoint, stream: bytes) -> None:
    """Return if this user may do what the script does. Appends nothing. Raises NotConnected, or Refused (DENIED)."""
    await append(client, endpoint, stream, ["", 1, 0])
    async with conversation(endpoint):
        try:
            await client.execute_command("XADD", stream, "NOMKSTREAM", "0-0", "", "")  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if "0-0" not in str(error) and not str(error).startswith(FULL):  # no entry may have that id
                raise


def _known(failure: str, endpoint: Endpoint) -> str:
    """The failure, if it is one of `FULL`; others are raised, as those of a command are."""
    if failure and not failure.startswith(FULL):
        raise error_reply(endpoint, failure)
    return failure


async def _call(client: Redis, call: Sequence[Word], *, asking: bool) -> Any:  # noqa: ANN401 - the library's
    if not asking:
        return await client.execute_command("EVALSHA", *call)  # type: ignore[no-untyped-call]
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    pipeline.execute_command("EVALSHA", *call)
    _, reply = await replies(pipeline)
    return reply
