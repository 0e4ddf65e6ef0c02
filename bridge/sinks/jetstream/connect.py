"""One connection to a NATS server: how it is made and how it is thrown away.

Secrets are read from the settings each time, so that a rotated one needs no restart. They never leave in plain text
where TLS was asked for (a `tls://` URL or any `BRIDGE_NATS_TLS_*` setting), and never appear in an error.
Every wait in here is bounded.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription
from nats.errors import Error, NoServersError, UnexpectedEOF
from nkeys import NkeysError  # type: ignore[import-untyped]

from bridge.clock import Clock
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.wire import Wire
from bridge.tasks import end
from bridge.tls import ClientTls, abort

OLDEST_SERVER = (2, 9)

_AUTHENTICATION = ("authorization violation", "authentication expired", "authentication revoked")
_CREDENTIALS_REMEDY = (
    "check BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD, BRIDGE_NATS_TOKEN, BRIDGE_NATS_CREDS_FILE, BRIDGE_NATS_NKEY_SEED"
    " or the user in BRIDGE_NATS_URL"
)
_TLS_REMEDY = "check BRIDGE_NATS_TLS_CA_FILE, BRIDGE_NATS_TLS_CERT_FILE and BRIDGE_NATS_TLS_KEY_FILE"

_NO_TLS = "the NATS server offers no TLS, but BRIDGE_NATS_TLS_* or a tls:// URL asks for it: no password was sent"


@dataclass(frozen=True)
class Handlers:
    """Who hears of what happens on the connection. Coroutine functions, as the client library wants them."""

    error: Callable[[Exception], Awaitable[None]]
    disconnected: Callable[[], Awaitable[None]]
    closed: Callable[[], Awaitable[None]]


async def connect(settings: Settings, handlers: Handlers, clock: Clock, limits: JetStreamLimits) -> Wire:
    """A connected client. It must be given to `discard` in the end.

    Raises NotConnected: no server can be reached. Refused: one answered and will not have us.
    """
    client = Wire(limits.message_bytes)
    seen: list[Exception] = []

    async def on_error(error: Exception) -> None:
        seen.append(error)
        if isinstance(error, ssl.SSLError) and not client.is_connected:
            raise error  # now: the library would wait for ever for the end of a failed handshake (#718)
        await handlers.error(error)

    urls = [url.strip() for url in (settings.secret("nats_url") or "").split(",")]
    servers = ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in urls)
    try:
        async with clock.timeout(limits.connect):
            await client.connect(
                servers=[_without_user(url) for url in urls],
                error_cb=on_error,
                disconnected_cb=handlers.disconnected,
                closed_cb=handlers.closed,
                **_options(limits),
                **_authentication(client, settings, urls),
            )
        _check_server(client, servers, encrypted=_wants_tls(settings, urls))
    except BaseException as error:
        await discard(client, clock, limits.close)
        if isinstance(error, BridgeError) or not isinstance(error, Exception):
            raise
        # What it comes from may quote a secret.
        raise _translated([*seen, error], servers, encrypted=_wants_tls(settings, urls)) from None
    return client


async def discard(client: Client, clock: Clock, seconds: float, subscription: Subscription | None = None) -> None:
    """Give back everything that belongs to `client`, in any state of it, within that many seconds. Never raises.

    What was not sent yet is dropped. The library's own `close()` would wait for ever for a frozen server to take it
    (nats-py #671), hence the few looks behind its public names; where they do not exist, `close()` is all there is.
    """
    getattr(client, "_pending", []).clear()
    if hasattr(client, "_pending_data_size"):
        client._pending_data_size = 0  # noqa: SLF001 - see above
    writer = _writer(client)
    if writer is not None:
        abort(writer.transport)
    # In a task of its own: it can end in a cancellation that nobody asked of us, that of a future which it shares with
    # the tasks that it cancels.
    closing = asyncio.create_task(client.close(), name="nats-close")
    try:
        await clock.all([closing], seconds)
    finally:
        await end([closing])
    task = getattr(subscription, "_wait_for_msgs_task", None)
    if task is not None:  # `close()` leaves it running when it fails half way
        task.cancel()


def cluster_of(client: Client) -> str | None:
    """The name of the cluster that its server belongs to; None if the server stands alone."""
    about: dict[str, Any] = getattr(client, "_server_info", {})  # the library has no public name for it
    return about.get("cluster")


def _options(limits: JetStreamLimits) -> dict[str, Any]:
    return {
        "name": "expiry-bridge",
        "connect_timeout": max(round(limits.connect_step), 1),
        # Two rounds through the servers, then NoServersError. With `allow_reconnect=False` one server that is up and
        # refuses would hide the others. Nothing ever comes back over a reconnect: a session ends when it disconnects.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        # No buffer for the time without a connection, and no forced flush, which can hang: the window bounds what is
        # unsent.
        "pending_size": 0,
        "skip_subject_validation": True,  # ours are valid by construction
    }


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _authentication(client: Client, settings: Settings, urls: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    encrypted = _wants_tls(settings, urls)
    if encrypted:
        options["tls"] = _tls_context(settings)

    def guarded(secret: str) -> Callable[[], str]:
        def reveal() -> str:  # called when the handshake, if there is one, is done
            if encrypted and not _is_encrypted(client):
                raise Refused(_NO_TLS)
            return secret

        return reveal

    user, password, token = settings.nats_user, settings.secret("nats_password"), settings.secret("nats_token")
    if user is None and token is None:
        user, password, token = _user_of(urls)
    if user is not None:
        options["user"], options["password"] = guarded(user), guarded(password or "")
    if token is not None:
        options["token"] = guarded(token)
    if settings.nats_creds_file is not None:
        options["user_credentials"] = _credentials(settings.nats_creds_file)
    seed = settings.secret("nats_nkey_seed")
    if seed is not None:
        options["nkeys_seed_str"] = seed
    return options


def _user_of(urls: list[str]) -> tuple[str | None, str | None, str | None]:
    """User, password, token: of the first URL that has any. `nats://token@host` is a token, as in every NATS client."""
    for parts in map(urlsplit, urls):
        if parts.username and parts.password is not None:
            return unquote(parts.username), unquote(parts.password), None
        if parts.username:
            return None, None, unquote(parts.username)
    return None, None, None


def _credentials(file: Path) -> RawCredentials:
    """Raises Refused: it is not a credentials file. The library would look for its first line for ever."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Refused("BRIDGE_NATS_CREDS_FILE cannot be read") from None
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise Refused("BRIDGE_NATS_CREDS_FILE is not a credentials file", "it needs a user JWT and a user nkey seed")
    return RawCredentials(text)


def _wants_tls(settings: Settings, urls: list[str]) -> bool:
    files = (settings.nats_tls_ca_file, settings.nats_tls_cert_file, settings.nats_tls_key_file)
    return any(files) or any(url.startswith(("tls://", "wss://")) for url in urls)


def _tls_context(settings: Settings) -> ssl.SSLContext:
    return ClientTls(
        server="NATS",
        variables="BRIDGE_NATS_TLS",
        address_variable="BRIDGE_NATS_URL",
        plain="use nats:// there",
        ca_file=settings.nats_tls_ca_file,
        cert_file=settings.nats_tls_cert_file,
        key_file=settings.nats_tls_key_file,
        key_password=lambda: settings.secret("nats_tls_key_password"),
    ).context()


def _writer(client: Client) -> asyncio.StreamWriter | None:
    transport = getattr(client, "_transport", None)
    return getattr(transport, "_io_writer", None)


def _is_encrypted(client: Client) -> bool:
    writer = _writer(client)
    if writer is None:  # a WebSocket: encrypted exactly if its scheme says so
        server = getattr(client, "_current_server", None)
        return server is not None and server.uri.scheme == "wss"
    return writer.get_extra_info("ssl_object") is not None


def _check_server(client: Client, servers: str, *, encrypted: bool) -> None:
    if not client.is_connected:  # the server hung up in the middle of the greeting
        raise NotConnected(f"NATS at {servers}: the server closed the connection")
    if encrypted and not _is_encrypted(client):
        raise Refused(_NO_TLS)
    version = client.connected_server_version
    if (version.major, version.minor) < OLDEST_SERVER:
        raise Refused(f"NATS at {servers} is version {version.major}.{version.minor}; 2.9 or newer is needed")


def _words(cause: Exception) -> str:
    """Why there is no connection."""
    if isinstance(cause, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(cause, TimeoutError):
        return "no answer"
    return str(cause) or type(cause).__name__


def _translated(errors: list[Exception], servers: str, *, encrypted: bool) -> Exception:
    """The most telling of what went wrong. The library's last word is always the same; a bug is handed on as it is."""
    if refused := next((found for error in errors if (found := _refused(error, servers))), None):
        return refused
    causes = [error for error in errors if not isinstance(error, NoServersError)]
    cause = causes[-1] if causes else errors[-1]
    if encrypted and isinstance(cause, ConnectionResetError | BrokenPipeError | UnexpectedEOF):
        # In TLS 1.3 a server refuses a certificate when we take the handshake for done; its reason may be overtaken.
        shut = "closed the connection before it answered; it may require a client certificate, or a different one"
        return NotConnected(f"NATS at {servers} {shut}", _TLS_REMEDY)
    if isinstance(cause, OSError | Error):  # OSError includes TimeoutError
        return NotConnected(f"NATS at {servers} cannot be reached: {_words(cause)}")
    if isinstance(cause, ValueError | NkeysError):  # from reading the credentials: its words may quote them
        return Refused(f"the NATS credentials do not work ({type(cause).__name__})", _CREDENTIALS_REMEDY)
    return cause


def _refused(error: Exception, servers: str) -> Refused | None:
    """What the server, or the library on our behalf, will not have; None where `error` says nothing of that."""
    text = str(error).lower()
    if any(phrase in text for phrase in _AUTHENTICATION):
        return Refused(f"NATS at {servers} refuses the credentials", _CREDENTIALS_REMEDY)
    if isinstance(error, ssl.SSLCertVerificationError):  # of its authority, its date, or its host
        why = f"the certificate of NATS at {servers} is not trusted ({error.verify_message})"
        return Refused(why, "check it, BRIDGE_NATS_TLS_CA_FILE and the host in BRIDGE_NATS_URL")
    if isinstance(error, ssl.SSLError):
        return Refused(
            f"no TLS with NATS at {servers} ({getattr(error, 'reason', None) or 'handshake failed'})", _TLS_REMEDY
        )
    return None
