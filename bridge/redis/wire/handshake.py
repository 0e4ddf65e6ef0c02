"""How a connection of the client library begins: one login, certificates read anew, a hang-up recognised, one server.

Certificates are read for each connection, as passwords are: redis-py's own TLS connection keeps what it has read first,
and a rotated certificate would need a restart.
"""

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import redis.exceptions as client
from redis.asyncio import Connection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.driver_info import DriverInfo

from bridge.redis.wire.binding import Binding
from bridge.settings import Settings
from bridge.tls import ClientTls, abort

DRIVER = DriverInfo()
"""What a server is told of the library: found out once, not read from the file system again for each connection."""
FULL = "max number of clients"
"""What a server answers that takes no more of them."""


class HungUp(client.ConnectionError):
    """The server took the connection, and closed it before it had answered anything."""


class _Greeting(AbstractConnection):
    """One that tells a server that hangs up at once from one that is lost later, and one server from another."""

    def __init__(self, *, binding: Binding | None, **options: Any) -> None:  # noqa: ANN401 - the library's
        """`binding`: which process it must reach; None: any."""
        super().__init__(**{"driver_info": DRIVER, **options})
        self._binding = binding

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's
        """See the library: it logs in. Its name it says here: a server that does not want to know will do as well."""
        name, self.client_name = self.client_name, None
        binding = self._binding
        if binding is not None:
            binding.opened(self)
        releases = 0 if binding is None else binding.releases
        try:
            await super().on_connect_check_health(check_health)
            await self.send_command("CLIENT", "SETNAME", name, check_health=False)
            with suppress(client.ResponseError):
                await self.read_response()
            if binding is not None:
                await self.send_command("INFO", "server", check_health=False)
                binding.require(await self.read_response())
        except client.ConnectionError as error:
            dropped = binding is not None and binding.releases != releases
            answer = type(error) is not client.ConnectionError or FULL in str(error)
            if not answer and not dropped:
                raise HungUp(str(error)) from error
            raise
        finally:
            self.client_name = name

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
        """Nothing. The library's own would log in twice, and take a login that is refused for a lost connection."""


class TlsConnection(PlainConnection):
    """One whose certificates are read when it connects."""

    def __init__(self, *, context: Callable[[], ssl.SSLContext], handshake: float, **options: Any) -> None:  # noqa: ANN401 - the library's
        """`handshake`: seconds that it may take."""
        super().__init__(**options)
        self._context = context
        self._handshake = handshake

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return {**arguments, "ssl": self._context(), "ssl_handshake_timeout": self._handshake}


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
