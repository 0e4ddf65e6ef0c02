"""How a connection of the client library begins: one login, certificates read anew, a hang-up recognised, one server.

If a credentials provider has another login later, the connection is logged in anew before it is used. Certificates are
read for each connection, as passwords are: redis-py's own TLS connection keeps what it has read first, and a rotated
certificate would need a restart.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import redis.exceptions as client
from redis.asyncio import Connection, ConnectionPool, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.driver_info import DriverInfo

from bridge.errors import Unusable
from bridge.redis.wire.binding import Binding
from bridge.redis.wire.logins import Login
from bridge.settings import Settings
from bridge.tls import ClientTls, abort

DRIVER = DriverInfo()
"""What a server learns about the library: read once, not from the file system for each connection."""
FULL = "max number of clients"
"""The answer of a server that accepts no more clients."""


class HungUp(client.ConnectionError):
    """The server accepted the connection, and closed it before it answered anything."""


class _Greeting(AbstractConnection):
    """A connection that recognises a server that hangs up at once, and a server that is another one."""

    def __init__(
        self,
        *,
        binding: Binding | None,
        login: Callable[[], Awaitable[Login | None]],
        **options: Any,  # noqa: ANN401 - the library's
    ) -> None:
        """`binding`: the process that it must reach; None for any. `login`: called whenever it connects."""
        super().__init__(**{"driver_info": DRIVER, **options})
        self._binding = binding
        self._ask_login = login
        self._login: Login | None = None

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's
        """See the library: it logs in. It also sends its name; a server may refuse that."""
        name, self.client_name = self.client_name, None
        binding = self._binding
        if binding is not None:
            binding.opened(self)
        releases = 0 if binding is None else binding.releases
        try:
            await self._log_in(check_health)
            await self.send_command("CLIENT", "SETNAME", name, check_health=False)
            with suppress(client.ResponseError):
                await self.read_response()
            if binding is not None:
                await self.send_command("INFO", "server", check_health=False)
                binding.require(await self.read_response())
                binding.login = self._login
        except client.ConnectionError as error:
            dropped = binding is not None and binding.releases != releases
            answer = type(error) is not client.ConnectionError or FULL in str(error)
            if not answer and not dropped:
                raise HungUp(str(error)) from error
            raise
        finally:
            self.client_name = name

    async def _log_in(self, check_health: bool) -> None:  # noqa: FBT001 - the library's
        """Use the present login; if it is refused, that of the epoch's other connections."""
        accepted = None if self._binding is None else self._binding.login
        try:
            self._take(await self._ask_login())
            await super().on_connect_check_health(check_health)
        except (Unusable, client.AuthenticationError) as error:
            if accepted is None or accepted == self._login:
                if isinstance(error, client.AuthenticationError):
                    raise
                # Only after errors of its own class does the library give the connection up. After any other error,
                # the next command would go out without a login.
                raise client.RedisError(str(error)) from error
            self._take(accepted)
            if not self.is_connected:  # the library would connect for the next command, and greet in the midst of this
                await self._connect()  # type: ignore[no-untyped-call]
            await super().on_connect_check_health(check_health)

    def _take(self, login: Login | None) -> None:
        self._login = login
        self.username, self.password = (login.user, login.password) if login is not None else (None, None)

    async def can_read(self) -> bool:
        """See the library, whose pool calls this before it hands a connection out. The library misses a reset."""
        if self._reader is not None and self._reader.exception() is not None:
            raise client.ConnectionError("reset while nothing used it")
        read: bool = await super().can_read()
        return read

    async def renew(self, login: Login | None) -> None:
        """Log in with it, unless that was done or tried already. If the server refuses, the former login remains."""
        if login is not None and login != self._login:
            self._login = login
            await self.send_command("AUTH", *login.arguments, check_health=False)
            with suppress(client.ResponseError, client.AuthenticationError):
                await self.read_response(disconnect_on_error=False)

    async def drop(self) -> None:
        """See `Droppable`."""
        if self._writer is not None:
            abort(self._writer.transport)  # closing it would wait until all is sent, which a frozen server never takes
        await self.disconnect(nowait=True)


class PlainConnection(_Greeting, Connection):
    """One without TLS."""


class UnixConnection(_Greeting, UnixDomainSocketConnection):
    """One by a Unix socket."""

    async def on_connect(self) -> None:
        """Do nothing. The library's method would log in twice, and take a refused login for a lost connection."""


class TlsConnection(PlainConnection):
    """One whose certificates are read when it connects."""

    def __init__(self, *, context: Callable[[], ssl.SSLContext], handshake: float, **options: Any) -> None:  # noqa: ANN401 - the library's
        """`handshake`: how many seconds it may take."""
        super().__init__(**options)
        self._context = context
        self._handshake = handshake

    async def _connect(self) -> None:
        """See the library. It uses the present certificates, else those of the epoch's other connections."""
        binding, accepted = self._binding, None if self._binding is None else self._binding.context
        try:
            self._with = self._context()
            await super()._connect()  # type: ignore[no-untyped-call]
        except (Unusable, ssl.SSLError):
            if accepted is None:
                raise
            self._with = accepted
            await super()._connect()  # type: ignore[no-untyped-call]
        if binding is not None:
            binding.context = self._with

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return {**arguments, "ssl": self._with, "ssl_handshake_timeout": self._handshake}


class RenewingPool(ConnectionPool):
    """A pool whose connections are logged in anew before they are used, if there is another login."""

    def __init__(self, logins: Callable[[], Login | None], **options: Any) -> None:  # noqa: ANN401 - the library's
        """`logins`: returns the last login."""
        super().__init__(**options)
        self._logins = logins

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """See the library: it connects."""
        await super().ensure_connection(connection)
        if isinstance(connection, _Greeting):
            await connection.renew(self._logins())


def redis_tls(settings: Settings) -> ClientTls:
    """The certificates for Redis."""
    return ClientTls(
        server="Redis",
        variables="BRIDGE_REDIS_TLS",
        address_variable="BRIDGE_REDIS_URL",
        plain="use redis:// there",
        ca_file=settings.redis_tls_ca_file,
        cert_file=settings.redis_tls_cert_file,
        key_file=settings.redis_tls_key_file,
        key_password=partial(settings.secret, "redis_tls_key_password"),
    )
