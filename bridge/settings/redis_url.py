"""What a URL of Redis says: one server, or the sentinels that know which server is the primary now.

No message holds the URL, or any part of it: it may hold a password.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
MAX_PORT = 65_535

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
SENTINEL_EXAMPLE = "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster/0"

_SENTINELS = re.compile(
    r"(?P<scheme>rediss?\+sentinel)://"
    r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]*)"
    r"(?P<service>/[^/?#]*)?"
    r"(?P<db>/[^/?#]*)?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of a URL. There is a host and a port, or a path, or there are sentinels and their service."""

    tls: bool
    db: int
    username: str | None
    password: str | None
    host: str = ""
    port: int = 0
    path: str | None = None
    sentinels: Sequence[tuple[str, int]] = ()
    service: str = ""


def server_address(parts: SplitResult) -> RedisAddress:
    """Of one server. The parts are sound."""
    socket = parts.scheme == "unix"
    return RedisAddress(
        tls=parts.scheme == "rediss",
        db=int(parts.query.removeprefix("db=") or (not socket and parts.path[1:]) or 0),
        username=_text(parts.username),
        password=_text(parts.password),
        host="" if socket else parts.hostname or "",
        port=0 if socket else parts.port or DEFAULT_PORT,
        path=unquote(parts.path) if socket else None,
    )


def sentinel_address(url: str) -> RedisAddress:
    """Of sentinels; raises ValueError, with the requirement that the URL does not meet."""
    parts = None if re.search(r"[\x00-\x20\x7f]", url) else _SENTINELS.fullmatch(url)
    if parts is None:
        raise ValueError(f"must be a URL such as {SENTINEL_EXAMPLE}; percent-encode special characters")
    hosts = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")]
    if not all(host and 0 < int(host[2] or DEFAULT_SENTINEL_PORT) <= MAX_PORT for host in hosts):
        raise ValueError(f"must name the sentinels as host:port, separated by commas, as in {SENTINEL_EXAMPLE}")
    service, db = (parts["service"] or "")[1:], (parts["db"] or "/0")[1:]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
        raise ValueError(
            f"must name the service that the sentinels monitor behind the hosts, as in {SENTINEL_EXAMPLE}"
            " (letters, digits and . _ -)"
        )
    if not re.fullmatch("[0-9]{1,9}", db):
        raise ValueError(f"the db behind the service must be a number, as in {SENTINEL_EXAMPLE}")
    found = [(host[1].strip("[]"), int(host[2] or DEFAULT_SENTINEL_PORT)) for host in hosts if host]
    return RedisAddress(
        tls=parts["scheme"].lower() == "rediss+sentinel",
        db=int(db),
        username=_text(parts["username"]),
        password=_text(parts["password"]),
        sentinels=tuple(dict.fromkeys(found)),
        service=service,
    )


def _text(encoded: str | None) -> str | None:
    return unquote(encoded) if encoded else None
