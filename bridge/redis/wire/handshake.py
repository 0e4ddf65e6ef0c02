"""How a connection to Redis begins, TLS above all: what is trusted and shown, and what it means where it fails.

Certificates are read anew for each connection, as passwords are: redis-py's own TLS connection keeps what it has read
first, and a rotated certificate would need a restart.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis.exceptions as client
from redis.asyncio import Connection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection

from bridge.errors import BridgeError, NotConnected, Refused
from bridge.settings import Settings

HANDSHAKE_TIMEOUT = 4.0
"""Seconds; less than a command may take, so that it is the handshake that is blamed, and not Redis for its silence."""

_CERTIFICATES = "BRIDGE_REDIS_TLS_CERT_FILE and BRIDGE_REDIS_TLS_KEY_FILE"
_OTHER_HOST = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_EXPIRED = 10
"""Its X509_V_ERR_CERT_HAS_EXPIRED."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "RECORD_LAYER_FAILURE")


class HungUp(client.ConnectionError):
    """The server took the connection, and closed it before it had answered anything."""


class _Greeting(AbstractConnection):
    """One that tells a server that hangs up at once from one that is lost later."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's
        """See the library: it logs in, and says its name."""
        try:
            await super().on_connect_check_health(check_health)
        except client.ConnectionError as error:
            if type(error) is client.ConnectionError:  # those below it are answers
                raise HungUp(str(error)) from error
            raise


class PlainConnection(_Greeting, Connection):
    """One without TLS."""


class UnixConnection(_Greeting, UnixDomainSocketConnection):
    """One by a Unix socket."""

    async def on_connect(self) -> None:
        """Nothing. The library's own would log in twice, and take a login that is refused for a lost connection."""


class TlsConnection(PlainConnection):
    """One whose certificates are read when it connects."""

    def __init__(self, *, context: Callable[[], ssl.SSLContext], **options: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__(**options)
        self._context = context

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return {**arguments, "ssl": self._context(), "ssl_handshake_timeout": HANDSHAKE_TIMEOUT}


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Server and host name are always verified. Raises Refused where a file cannot be used."""
    password = settings.secret("redis_tls_key_password") or ""  # without one, OpenSSL would ask on the terminal
    try:
        context = ssl.create_default_context(cafile=settings.redis_tls_ca_file)
        if settings.redis_tls_cert_file:
            context.load_cert_chain(settings.redis_tls_cert_file, settings.redis_tls_key_file, password)
    except (OSError, ValueError) as error:  # ssl.SSLError is the former
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
        remedy = f"check BRIDGE_REDIS_TLS_CA_FILE, {_CERTIFICATES}, and BRIDGE_REDIS_TLS_KEY_PASSWORD"
        raise Refused(f"the TLS files for Redis do not work ({why})", remedy) from error
    return context


def unwelcome(server: str, error: BaseException, *, tls: bool, answered: bool) -> BridgeError | None:
    """What `error` says of the beginning of a connection; None where it is about something else.

    The client library wraps what it is told; what counts is somewhere in the chain of causes.
    """
    for cause in _chain(error):
        if isinstance(cause, Refused):
            return cause
        if isinstance(cause, ssl.SSLError) and (refused := _refused_tls(server, cause)):
            return refused
        if isinstance(cause, ConnectionAbortedError) and "handshake" in str(cause):
            return NotConnected(
                f"{server} begins no TLS, which rediss:// in BRIDGE_REDIS_URL asks for", "check its port"
            )
    if answered:
        return None
    found = f"{server} closed the connection before it answered"
    if tls:
        return NotConnected(f"{found}; it may want a client's certificate, or another one", f"check {_CERTIFICATES}")
    return NotConnected(f"{found}; it may want TLS", "set BRIDGE_REDIS_URL to a rediss:// URL")


def _refused_tls(server: str, error: ssl.SSLError) -> Refused | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(f"the certificate of {server} is not trusted ({error.verify_message})", _remedy(error))
    reason = getattr(error, "reason", None) or ""  # OpenSSL's; what asyncio raises itself has none
    if "_ALERT_" in reason:  # the server's word
        return Refused(f"{server} refuses our TLS ({reason})", f"check {_CERTIFICATES}")
    if reason in _NO_TLS:
        return Refused(f"no TLS with {server} ({reason})", "check the port in BRIDGE_REDIS_URL, or use redis:// there")
    return None  # a connection that broke


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _OTHER_HOST:
        return "name it in BRIDGE_REDIS_URL as its certificate does"
    if error.verify_code == _EXPIRED:
        return "renew it, or the authority in BRIDGE_REDIS_TLS_CA_FILE"
    return "check BRIDGE_REDIS_TLS_CA_FILE"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
