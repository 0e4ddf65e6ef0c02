"""What files and handshakes that fail say, with what to do about it."""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol, _SSLProtocolTransport
from pathlib import Path
from typing import Any, cast

import pytest

from bridge.errors import Refused
from bridge.tls import ClientTls, abort


def client_tls(**files: Path) -> ClientTls:
    """With these files."""
    return ClientTls(
        server="Redis",
        variables="BRIDGE_REDIS_TLS",
        address_variable="BRIDGE_REDIS_URL",
        plain="use redis:// there",
        ca_file=files.get("ca_file"),
        cert_file=files.get("cert_file"),
        key_file=files.get("key_file"),
        key_password=lambda: None,
    )


def test_without_files_the_system_is_trusted_and_names_are_verified() -> None:
    context = client_tls().context()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_cannot_be_used_is_refused_with_the_variables(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="TLS files for Redis do not work") as caught:
        client_tls(**{name: tmp_path / "missing"}).context()

    assert caught.value.remedy == (
        "check BRIDGE_REDIS_TLS_CA_FILE, BRIDGE_REDIS_TLS_CERT_FILE and BRIDGE_REDIS_TLS_KEY_FILE,"
        " and BRIDGE_REDIS_TLS_KEY_PASSWORD"
    )


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    """As OpenSSL says it of a certificate."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "why"
    return error


def broken(reason: str) -> ssl.SSLError:
    """A handshake that broke for that."""
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (untrusted(62), "name it in BRIDGE_REDIS_URL as its certificate does"),
        (untrusted(64), "name it in BRIDGE_REDIS_URL as its certificate does"),
        (untrusted(10), "renew it, or the authority in BRIDGE_REDIS_TLS_CA_FILE"),
        (untrusted(20), "check BRIDGE_REDIS_TLS_CA_FILE"),
        (broken("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "check BRIDGE_REDIS_TLS_CERT_FILE and BRIDGE_REDIS_TLS_KEY_FILE"),
        (broken("WRONG_VERSION_NUMBER"), "check the port in BRIDGE_REDIS_URL, or use redis:// there"),
    ],
)
def test_a_handshake_that_was_refused_says_what_to_do(error: ssl.SSLError, remedy: str) -> None:
    refused = client_tls().handshake_refused(error, "Redis at r:1")

    assert refused is not None
    assert "Redis at r:1" in refused.found
    assert refused.remedy == remedy


def test_a_connection_that_just_broke_is_no_refusal() -> None:
    assert client_tls().handshake_refused(broken("UNEXPECTED_EOF_WHILE_READING"), "Redis at r:1") is None
    assert client_tls().handshake_refused(ssl.SSLError("no reason"), "Redis at r:1") is None


class ClosedTwice(_SSLProtocolTransport):
    """A connection with TLS that was closed twice, as Python 3.11.2 leaves it, and aborts it."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop(), cast("SSLProtocol", None))
        self._closed = True

    def abort(self) -> None:
        """Raises AttributeError."""
        self._closed = True
        cast("Any", self)._ssl_protocol._abort()


async def test_what_is_closed_already_can_be_aborted() -> None:
    abort(ClosedTwice())


async def test_a_connection_that_is_open_is_aborted_with_what_it_has_not_sent() -> None:
    ended = asyncio.Event()

    async def take_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.transport.abort()

    async with await asyncio.start_server(take_nothing, "127.0.0.1", 0, limit=1) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(bytes(100_000_000))
        writer.close()  # that alone would wait until the server has taken all of it
        abort(writer.transport)
        assert await reader.read() == b""
        ended.set()
