"""A NATS server that let `check` in, and how to ask it without waiting for what it denies."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeVar

from nats.aio.client import Client
from nats.errors import TimeoutError as NoAnswer
from nats.js import JetStreamContext

from bridge.commands.check.nats.remedies import NatsTools
from bridge.sinks.jetstream.denials import Denials
from bridge.tasks import end

API_SECONDS = 3.0
"""How long to wait for an answer."""
DENIAL_SECONDS = 0.02
"""How often to look whether the server has denied a question: nothing will ever answer that."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Nats:
    """A server that let us in, and what the settings want of it."""

    client: Client
    jetstream: JetStreamContext
    denials: Denials
    tools: NatsTools

    async def ask(self, subject: str, answer: Coroutine[object, object, T]) -> T:
        """The answer to a question to this subject. Raises NoAnswer at once where the question is denied; and Error."""
        asking = asyncio.create_task(answer, name="nats-question")
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=DENIAL_SECONDS)
                if not asking.done() and (self.denials.subscription or self.denials.perhaps(subject)):
                    raise NoAnswer
            return asking.result()
        finally:
            await end([asking])
