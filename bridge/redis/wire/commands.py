"""Commands to one server: with a time limit, and with our errors.

Each command uses a connection on which nothing else is awaited, so that no call waits for another one's answer. There
are as many connections as there were ever commands under way at once. One timer watches all of them. When a credentials
provider has a new login, a connection is logged in with it before it is used.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from bridge.errors import NotConnected
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.errors import translated
from bridge.redis.wire.exchange import Argument, Command, Exchange, opened


class Commands:
    """See the module. Connections are opened when they are needed, and given back by `close`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._seconds = endpoint.limits.command
        self._clock = endpoint.clock
        self._logins = endpoint.logins
        self._idle: list[Exchange] = []
        self._busy = dict[Exchange, None]()
        """In the order of their commands (a set has no order): they end in that order."""
        self._timer: asyncio.TimerHandle | None = None
        self._kept = True
        """Whether connections are kept for the next command."""

    async def ask(self, *words: Argument) -> Any:  # noqa: ANN401 - a reply's shape is its command's
        """Its reply. Raises NotConnected, Refused or Fenced."""
        (reply,) = await self.answers([words])
        if isinstance(reply, RedisError):
            raise translated(self.endpoint, reply) from reply
        return reply

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one write. Returns a reply or a Redis error for each. Raises NotConnected or Refused."""
        try:
            exchange = self._free() or await self._open()
            exchange.until = self._clock.monotonic() + self._seconds
            self._busy[exchange] = None
            if self._timer is None:
                self._timer = self._clock.later(self._seconds, self._watch)
            try:
                renewal = self._renewal(exchange)
                replies = await exchange.send([*renewal, *commands] if renewal else commands)
                return replies[len(renewal) :] if renewal else replies
            finally:
                self._busy.pop(exchange, None)
                if exchange.idle and self._kept:
                    self._idle.append(exchange)
                else:
                    exchange.end(RedisConnectionError("Connection closed"))
        except TimeoutError as error:
            raise NotConnected(f"{self.endpoint.title}: no answer within {self._seconds:g} s") from error
        except (RedisError, OSError) as error:
            raise translated(self.endpoint, error) from error

    def close(self) -> None:
        """Give the connections back. Callers that wait for an answer get NotConnected; later calls are still served."""
        self._kept = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in (*self._idle, *self._busy):
            exchange.end(RedisConnectionError("Connection closed"))
        self._idle.clear()

    @property
    def connected(self) -> bool:
        """Whether a command could be sent at once."""
        return any(exchange.idle for exchange in self._idle)

    def _free(self) -> Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.idle:  # else it was lost meanwhile
                return exchange
        return None

    async def _open(self) -> Exchange:
        async with self._clock.timeout(self._seconds):
            return await opened(self.endpoint)

    def _renewal(self, exchange: Exchange) -> Sequence[Command]:
        """To log in anew, if a credentials provider has another login. If refused, the former one still counts."""
        login = None if self._logins is None else self._logins.look(self._clock, self.endpoint.limits)
        if login is None or login == exchange.login:
            return ()
        exchange.login = login
        return [("AUTH", *login.arguments)]

    def _watch(self) -> None:
        """End what is overdue; then look again when the next one would be."""
        now = self._clock.monotonic()
        for exchange in [exchange for exchange in self._busy if exchange.until <= now]:
            exchange.end(TimeoutError())
        left = min([exchange.until - now for exchange in self._busy if exchange.until > now], default=None)
        self._timer = None if left is None else self._clock.later(left, self._watch)
