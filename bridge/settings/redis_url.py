"""What a URL of Redis says: one server, the sentinels that know which server is the primary now, or nodes of a cluster.

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
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
CLUSTER_EXAMPLE = "redis+cluster://10.0.0.1:6379,10.0.0.2:6379"

_SERVERS = re.compile(
    r"(?P<scheme>rediss?\+(?:sentinel|cluster))://"
    r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]*)"
    r"(?P<first>/[^/?#]*)?"
    r"(?P<second>/[^/?#]*)?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of a URL. There is a host and a port, or a path, or sentinels and their service, or nodes."""

    tls: bool
    db: int
    username: str | None
    password: str | None
    host: str = ""
    port: int = 0
    path: str | None = None
    sentinels: Sequence[tuple[str, int]] = ()
    service: str = ""
    nodes: Sequence[tuple[str, int]] = ()
    """Some of a cluster: those to ask first."""

    @property
    def place(self) -> object:
        """What is equal for two URLs of the same database, for any login."""
        return self.host, self.port, self.path, self.db, frozenset(self.sentinels), self.service, frozenset(self.nodes)


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
    parts = _servers(url, SENTINEL_EXAMPLE)
    found = _hosts(parts["hosts"], DEFAULT_SENTINEL_PORT)
    if not found:
        raise ValueError(f"must name the sentinels as host:port, separated by commas, as in {SENTINEL_EXAMPLE}")
    service, db = (parts["first"] or "")[1:], (parts["second"] or "/0")[1:]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
        raise ValueError(
            f"must name the service that the sentinels monitor behind the hosts, as in {SENTINEL_EXAMPLE}"
            " (letters, digits and . _ -)"
        )
    if not re.fullmatch("[0-9]{1,9}", db):
        raise ValueError(f"the db behind the service must be a number, as in {SENTINEL_EXAMPLE}")
    return RedisAddress(
        tls=_tls(parts),
        db=int(db),
        username=_text(parts["username"]),
        password=_text(parts["password"]),
        sentinels=found,
        service=service,
    )


def cluster_address(url: str) -> RedisAddress:
    """Of nodes of a cluster; raises ValueError, with the requirement that the URL does not meet."""
    parts = _servers(url, CLUSTER_EXAMPLE)
    found = _hosts(parts["hosts"], DEFAULT_PORT)
    if not found:
        raise ValueError(f"must name nodes of the cluster as host:port, separated by commas, as in {CLUSTER_EXAMPLE}")
    if parts["second"] or parts["first"] not in {None, "/", "/0"}:
        raise ValueError(f"has no place for a db: the bridge works on db 0 of a cluster, as in {CLUSTER_EXAMPLE}")
    return RedisAddress(
        tls=_tls(parts),
        db=0,
        username=_text(parts["username"]),
        password=_text(parts["password"]),
        nodes=found,
    )


def _servers(url: str, example: str) -> re.Match[str]:
    parts = None if re.search(r"[\x00-\x20\x7f]", url) else _SERVERS.fullmatch(url)
    if parts is None:
        raise ValueError(f"must be a URL such as {example}; percent-encode special characters")
    return parts


def _hosts(text: str, port: int) -> Sequence[tuple[str, int]]:
    """Each once; none where one of them cannot be one."""
    hosts = [_HOST.fullmatch(host) for host in text.split(",")]
    if not all(host and 0 < int(host[2] or port) <= MAX_PORT for host in hosts):
        return ()
    return tuple(dict.fromkeys((host[1].strip("[]"), int(host[2] or port)) for host in hosts if host))


def _tls(parts: re.Match[str]) -> bool:
    return parts["scheme"].lower().startswith("rediss")


def _text(encoded: str | None) -> str | None:
    return unquote(encoded) if encoded else None
