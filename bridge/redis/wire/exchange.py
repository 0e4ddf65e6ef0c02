"""One connection for commands: what is sent in one write is answered before anything else is sent.

This is our own protocol on hiredis, because the client library spends as much time on a command as the rest of the
bridge on an expiration. Errors are still the library's classes, so that `errors.py` can treat all commands alike.

Guarantees: a reply always belongs to the commands that were sent last. To ensure that, a caller that gives up waiting
ends the connection, and so does an answer that is not in Redis's protocol. No received bytes make it raise.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import hiredis
from redis import exceptions as client
from redis.asyncio.connection import DefaultParser

from bridge.errors import Unusable
from bridge.redis.wire.binding import Binding
from bridge.redis.wire.endpoint import CLIENT_NAME, Endpoint
from bridge.redis.wire.handshake import HungUp
from bridge.redis.wire.logins import Login
from bridge.tls import abort

Argument = bytes | str | int
Command = Sequence[Argument]

_PART = object()
"""What the reader returns if the next reply is not complete: `None` would look like a null."""
_OVER = "Connection closed: its epoch is over"


class Exchange(asyncio.Protocol):
    """See the module. Made by `opened`."""

    def __init__(self) -> None:
        self.until = 0.0
        """When the answer is overdue, in monotonic seconds. `Commands` watches that."""
        self.login: Login | None = None
        """The login that it used last, or should have used."""
        self._reader = hiredis.Reader(
            protocolError=client.InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_PART
        )
        self._transport: asyncio.Transport | None = None
        self._awaited: asyncio.Future[list[Any]] | None = None
        self._count = 0
        """How many replies are awaited."""
        self._replies: list[Any] = []
        self._answered = False
        """Whether the server has ever said anything."""
        self._lost: Exception | None = None
        """Why the connection is over."""

    @property
    def idle(self) -> bool:
        """Whether commands may be sent: the connection is up, and nothing is awaited."""
        return self._lost is None and self._awaited is None

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands in one write. The future has a reply or a Redis error for each.

        If the connection ends, the future ends with an error of the client library, or an OSError. A caller that gives
        up waiting must call `end`.
        """
        awaited = self._awaited = asyncio.get_running_loop().create_future()
        self._count, self._replies = len(commands), []
        if self._lost is not None or self._transport is None:
            self._fail(self._lost or client.ConnectionError("not connected"))
        else:
            self._transport.write(b"".join([_packed(command) for command in commands]))
        return awaited

    def end(self, error: Exception) -> None:
        """End it at once: a caller that waits for an answer gets the error."""
        if self._lost is None:
            self._lost = error
        if self._transport is not None:
            abort(self._transport)  # closing it would wait until all is sent, which a frozen server never takes
        self._fail(error)

    async def drop(self) -> None:
        """See `Droppable`."""
        self.end(client.ConnectionError(_OVER))

    def _fail(self, error: Exception) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_exception(error)
            awaited.exception()  # it need not be awaited: the wait may have been given up

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)
        if self._lost is not None:
            abort(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over. A server that accepts no more clients says so, and closes it."""
        said = next((reply for reply in self._replies if isinstance(reply, client.RedisError)), None)
        lost = client.ConnectionError if self._answered else HungUp
        error = said or lost(f"connection lost: {exc}" if exc else "Connection closed by server.")
        error.__cause__ = exc
        self.end(error)

    def data_received(self, data: bytes) -> None:
        """Take the replies out of `data`."""
        self._answered = True
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _PART:
                self._replies.append(reply)
        except (client.InvalidResponse, TypeError, ValueError, MemoryError) as error:
            # See `Subscription.data_received`. A redirection that names no server is a ValueError of the library's.
            self.end(client.InvalidResponse(str(error) or type(error).__name__))
            return
        missing = self._count - len(self._replies)
        if missing > 0:
            return
        awaited, self._awaited = self._awaited, None
        if missing < 0 or awaited is None:
            self._awaited = awaited
            self.end(client.InvalidResponse("a reply to no command"))
        elif not awaited.done():
            awaited.set_result(self._replies)


def _packed(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # its stub takes one word only
    return packed


class _Entrance(NamedTuple):
    """The login and the certificates with which a connection is let in."""

    login: Login | None
    context: ssl.SSLContext | None


async def opened(endpoint: Endpoint) -> Exchange:
    """A connection, logged in. Raises the client library's errors, OSError, NotConnected or Refused.

    It uses the present login and certificates. If these are refused, it uses those of the epoch's other connections.
    """
    binding = endpoint.binding
    try:
        return await _opened(endpoint, _Entrance(await endpoint.current_login(), endpoint.ssl_context()))
    except (Unusable, client.AuthenticationError, ssl.SSLError):
        if binding is None or binding.run_id is None:
            raise
        return await _opened(endpoint, _Entrance(binding.login, binding.context))


async def _opened(endpoint: Endpoint, entrance: _Entrance) -> Exchange:
    exchange, binding = Exchange(), endpoint.binding
    releases = 0 if binding is None else binding.releases
    if binding is not None:
        binding.opened(exchange)
    try:
        await endpoint.open(exchange, entrance.context)
        exchange.login = entrance.login
        login: list[Command] = [] if entrance.login is None else [["AUTH", *entrance.login.arguments]]
        database: list[Command] = [["SELECT", endpoint.db]] if endpoint.db else []
        who: list[Command] = [["INFO", "server"]] if binding is not None else []
        replies = await exchange.send([*login, *database, ["CLIENT", "SETNAME", CLIENT_NAME], *who])
        for reply in replies[: len(login) + len(database)]:
            _require(reply)
        name = replies[len(login) + len(database)]
        if not isinstance(name, client.ResponseError):  # a server that does not want to know it will do as well
            _require(name)
        if binding is not None:
            _require_epoch(binding, releases)
            binding.require(_require(replies[-1]))
            binding.login, binding.context = entrance
    except BaseException as error:
        exchange.end(client.ConnectionError("Connection closed"))
        if isinstance(error, HungUp) and binding is not None and binding.releases != releases:
            raise client.ConnectionError(str(error)) from error
        raise
    return exchange


def _require(reply: Any) -> Any:  # noqa: ANN401 - whatever a server may send
    """Raises the reply if it is an error."""
    if isinstance(reply, client.RedisError):
        raise reply
    return reply


def _require_epoch(binding: Binding, releases: int) -> None:
    """Raises if the epoch is over: an answer from just before must not bind the next one."""
    if binding.releases != releases:
        raise client.ConnectionError(_OVER)
