"""Throwing a NATS client away: whatever the client library does about it, nothing comes of it but the end."""

import asyncio
from typing import cast

import pytest
from nats.aio.client import Client

from bridge.clock import SystemClock
from bridge.sinks.jetstream.connect import discard


class Closing:
    """A client whose `close()` ends in the cancellation of what it shares with others, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def close(self) -> None:
        """As the library's own."""
        if self._error is not None:
            raise self._error
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()
        await shared


@pytest.mark.parametrize("client", [Closing(), Closing(OSError("gone")), Closing(RuntimeError("a bug"))])
async def test_whatever_its_closing_ends_in_a_client_is_discarded(client: Closing) -> None:
    await discard(cast("Client", client), SystemClock(), 1.0)
