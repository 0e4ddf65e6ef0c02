"""TLS as a client: what is trusted, what is shown, and what a handshake that failed says.

Guarantees: the server's certificate and its name are always verified; files are read each time a context is made, so a
rotated certificate needs no restart; OpenSSL never asks for a password on the terminal.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import Refused

_OTHER_HOST = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_EXPIRED = 10
"""Its X509_V_ERR_CERT_HAS_EXPIRED."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "RECORD_LAYER_FAILURE")
"""Its reasons where the other side does not speak TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """The certificates for one kind of server."""

    server: str
    """What to call it in messages: `Redis`, `NATS`, `Kafka`."""
    variables: str
    """What the names of its settings begin with: `BRIDGE_REDIS_TLS`."""
    address_variable: str
    """The setting that names its hosts."""
    plain: str
    """What to do with that setting to go without TLS: `use redis:// there`."""
    ca_file: Path | None
    """The authorities to trust; None: those of the system."""
    cert_file: Path | None
    """Our own certificate; None: none is shown."""
    key_file: Path | None
    key_password: Callable[[], str | None]
    """Reads the password of the key, where it has one. May raise Refused."""

    @property
    def certificate(self) -> str:
        """The settings of our own certificate, for a remedy."""
        return f"{self.variables}_CERT_FILE and {self.variables}_KEY_FILE"

    def context(self) -> ssl.SSLContext:
        """A context for one connection, or for all of a client. Raises Refused where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password() or "")
        except (OSError, ValueError) as error:  # ssl.SSLError is the former
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
            files = f"{self.variables}_CA_FILE, {self.certificate}"
            remedy = f"check {files}, and {self.variables}_KEY_PASSWORD"
            raise Refused(f"the TLS files for {self.server} do not work ({why})", remedy) from error
        return context

    def handshake_refused(self, error: ssl.SSLError, server: str) -> Refused | None:
        """What an error of the handshake with `server` says; None where the connection just broke."""
        if isinstance(error, ssl.SSLCertVerificationError):
            found = f"the certificate of {server} is not trusted ({error.verify_message})"
            return Refused(found, self._trust_remedy(error.verify_code))
        reason = getattr(error, "reason", None) or ""  # OpenSSL's; what asyncio raises itself has none
        if "_ALERT_" in reason:  # the server's word
            return Refused(f"{server} refuses our TLS ({reason})", f"check {self.certificate}")
        if reason in _NO_TLS:
            return Refused(
                f"no TLS with {server} ({reason})", f"check the port in {self.address_variable}, or {self.plain}"
            )
        return None

    def _trust_remedy(self, code: int) -> str:
        if code in _OTHER_HOST:
            return f"name it in {self.address_variable} as its certificate does"
        if code == _EXPIRED:
            return f"renew it, or the authority in {self.variables}_CA_FILE"
        return f"check {self.variables}_CA_FILE"


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a connection at once, whether it has TLS or not, and whether it is closed or not.

    One with TLS that a client library has closed twice raises AttributeError on Python 3.11.2, which Debian 12 has.
    """
    if getattr(transport, "_ssl_protocol", transport) is not None:
        transport.abort()
