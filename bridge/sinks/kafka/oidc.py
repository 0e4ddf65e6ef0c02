"""A token service, asked for a token by the client's own id and secret (OAuth 2.0, client credentials).

Guarantees: one question at a time; one that hangs is asked anew. A token is given again until four fifths of its time
are over, and not after `forget`. The secret goes to the one URL, in a header, and follows no redirection.
"""

import asyncio
import base64
import json
import re
import ssl
import urllib.request
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from bridge.clock import Clock
from bridge.providers import Questions, is_text, words
from bridge.settings import redact_url
from bridge.tasks import in_thread

SECONDS = 30.0
"""For one step of an answer. Who waits for a token does not wait so long."""
MOST_BYTES = 1 << 20
USED = 0.8
"""Of its time, a token is given again for so long."""
CLIENT = "BRIDGE_KAFKA_SASL_OAUTH_CLIENT_ID, BRIDGE_KAFKA_SASL_OAUTH_CLIENT_SECRET and BRIDGE_KAFKA_SASL_OAUTH_SCOPE"
URL = "BRIDGE_KAFKA_SASL_OAUTH_TOKEN_URL"


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, where, and for what."""

    url: str
    id: str
    secret: SecretStr | None
    secret_file: Path | None
    """Of these two one is set: they say which secret it is, not what it is now."""
    scope: str | None


class Answer(NamedTuple):
    """A token, or why there is none."""

    token: str | None = None
    seconds: float = 0.0
    """How long it is good for; 0 if that is not said."""
    found: str = ""
    remedy: str = ""
    refused: bool = False


class TokenService:
    """See the module."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._place = redact_url(client.url)
        self._token: str | None = None
        self._until = 0.0
        self._questions = Questions[Answer]("token")

    async def token(self, secret: str, clock: Clock) -> Answer:
        """One that is good for a while. Can be cancelled: the question goes on, for the next one who asks."""
        if self._token is not None and clock.monotonic() < self._until:
            return Answer(self._token)
        asking = self._questions.ask(clock, partial(self._ask, secret, clock))
        await asyncio.wait([asking])
        if asking.cancelled():
            return Answer(found=f"{self._place} does not answer", remedy=f"look into it, or check {URL}")
        return asking.result()

    def forget(self) -> None:
        """A broker has refused the token."""
        self._token = None

    async def _ask(self, secret: str, clock: Clock) -> Answer:
        asked = clock.monotonic()
        try:
            status, body = await in_thread(partial(_post, self._client, secret))
        except (OSError, ValueError) as error:  # URLError is an OSError
            return self._unreached(error)
        answer = self._read(status, body)
        if answer.token is not None and answer.seconds:
            self._token, self._until = answer.token, asked + answer.seconds * USED
        return answer

    def _read(self, status: int, body: bytes) -> Answer:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        fields = found if isinstance(found, dict) else {}
        if status == HTTPStatus.OK:
            token, seconds = fields.get("access_token"), fields.get("expires_in")
            if isinstance(token, str) and is_text(token):
                return Answer(token, float(seconds) if isinstance(seconds, int | float) else 0.0)
            return Answer(found=f"{self._place} answers without a token", remedy=f"check {URL}")
        said = fields.get("error")
        why = said if isinstance(said, str) and re.fullmatch("[a-z_]{1,50}", said) else f"HTTP status {status}"
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _LATER:
            return Answer(found=f"{self._place} gives no token ({why})", remedy=f"check {CLIENT}", refused=True)
        return Answer(found=f"{self._place} gives no token now ({why})", remedy=f"look into it, or check {URL}")

    def _unreached(self, error: Exception) -> Answer:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            found = f"the certificate of {self._place} is not trusted ({reason.verify_message})"
            return Answer(found=found, remedy="let SSL_CERT_FILE name a file with its authority", refused=True)
        why = words(reason) if isinstance(reason, Exception) else "no answer"
        return Answer(found=f"{self._place} cannot be reached ({why})", remedy=f"start it, or check {URL}")


_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """None: the redirection is the answer."""


def _post(client: Client, secret: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError, or ValueError where it is no HTTP."""
    form = {"grant_type": "client_credentials", **({"scope": client.scope} if client.scope else {})}
    login = base64.b64encode(f"{quote(client.id, safe='')}:{quote(secret, safe='')}".encode()).decode()
    headers = {"Accept": "application/json", "Authorization": f"Basic {login}"}
    request = urllib.request.Request(client.url, urlencode(form).encode(), headers)  # noqa: S310 - the settings allow http(s) alone
    try:
        with urllib.request.build_opener(_NoRedirection).open(request, timeout=SECONDS) as response:
            return response.status, response.read(MOST_BYTES)
    except HTTPError as error:
        with error:
            return error.code, error.read(MOST_BYTES)
