"""A command and its reply: with a time limit, and with our errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from bridge.errors import NotConnected
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.errors import translated


@asynccontextmanager
async def conversation(endpoint: Endpoint, within: float | None = None) -> AsyncIterator[None]:
    """One command. Errors of the client library, and a missing reply, become NotConnected, Refused or Fenced.

    `within`: seconds; by default what the endpoint's limits allow a command.
    """
    seconds = endpoint.limits.command if within is None else within
    try:
        async with endpoint.clock.timeout(seconds):
            yield
    except TimeoutError as error:
        message = f"{endpoint.title}: no answer within {seconds:g} s"
        raise NotConnected(message) from error
    except (RedisError, OSError) as error:
        raise translated(endpoint, error) from error


async def replies(pipeline: Pipeline, *, but: type[ResponseError] | tuple[()] = ()) -> list[Any]:
    """Send a pipeline, within a `conversation`. Its replies, among them errors of the kind `but`.

    Any other error is raised in Redis's words: the library would add the whole command, including users' keys.
    """
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, ResponseError) and not isinstance(answer, but):
            raise answer
    return answers
