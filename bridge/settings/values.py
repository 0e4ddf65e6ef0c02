"""The types of single values: what each may be, checked as strictly as the server behind it would.

No message holds a secret, or what may hide one (URLs, contents of files).
"""

import re
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from bridge.settings.redis_url import (
    CLUSTER_SCHEMES,
    MAX_PORT,
    SENTINEL_SCHEMES,
    RedisAddress,
    cluster_address,
    sentinel_address,
    server_address,
)

_Value = TypeVar("_Value")
LogFormat = Literal["console", "json"]

DEFAULT_KAFKA_PORT = 9092


class SinkKind(StrEnum):
    """Where expirations go."""

    JETSTREAM = "jetstream"
    KAFKA = "kafka"
    REDIS = "redis"
    STDOUT = "stdout"


def redact_url(url: str) -> str:
    """One URL without user, password and options, fit for logs. Whatever might be a password is removed as well."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if separator else "(not a URL)"


def check_text(value: object) -> object:
    """Refuse what no server would take: NUL, and bytes that Python smuggles into text as lone surrogates."""
    if isinstance(value, str) and ("\0" in value or value.encode(errors="replace").decode() != value):
        raise ValueError("must be UTF-8 without NUL")
    return value


def check_quotes(value: object) -> object:
    """Refuse what was quoted for a shell, and read by none: Docker and Kubernetes, for two, keep the quotes."""
    if isinstance(value, str) and re.fullmatch("(?s)([\"']).*\\1", value):
        raise ValueError("must be without the quotes around it")
    return value


def read_file(path: Path) -> bytes:
    """The contents of a regular file; raises ValueError, with the requirement that it does not meet."""
    # A pipe could be read only once, and would block for ever at the second reading.
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("must be a regular file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"must be a file that can be read: {error.strerror}") from None


def read_secret(path: Path) -> str:
    """The secret in a file, without one newline at its end; raises ValueError as `read_file` does."""
    try:
        text = re.sub(r"\r?\n\Z", "", read_file(path).decode())
    except UnicodeDecodeError:
        raise ValueError("must be a file in UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError("must be a file without a byte order mark, which would be a part of the secret")
    if "\n" in text:
        raise ValueError("must be a file of one line, which may end in one newline")
    if not text:
        raise ValueError("must be a file that is not empty")
    return text


def redis_address(url: str) -> RedisAddress:
    """What the URL of Redis says; raises ValueError where it cannot be one."""
    scheme = url.partition("://")[0].lower()
    if scheme in SENTINEL_SCHEMES:
        return sentinel_address(url)
    if scheme in CLUSTER_SCHEMES:
        return cluster_address(url)
    parts = _server(url, ("redis", "rediss", "unix"), "redis://127.0.0.1:6379/0", (*SENTINEL_SCHEMES, *CLUSTER_SCHEMES))
    path = "/.+" if parts.scheme == "unix" else "(/[0-9]{0,9})?"
    if not re.fullmatch(path, parts.path) or not re.fullmatch("(db=[0-9]{1,9})?", parts.query):
        raise ValueError("the db must be a number, as in redis://127.0.0.1:6379/0 or unix:///run/redis.sock?db=0")
    return server_address(parts)


def nats_servers(urls: str) -> list[SplitResult]:
    """The parts of the comma-separated URLs of NATS; raises ValueError where they cannot be of one cluster."""
    servers = [_server(url.strip(), ("nats", "tls", "ws", "wss"), "nats://127.0.0.1:4222") for url in urls.split(",")]
    if len({server.scheme in {"ws", "wss"} for server in servers}) > 1:
        raise ValueError("must not mix ws or wss with nats or tls")
    return servers


def _server(url: str, schemes: tuple[str, ...], example: str, others: tuple[str, ...] = ()) -> SplitResult:
    """`others`: schemes that are known, too, but not of a URL like this one."""
    try:  # urlsplit drops some control characters silently, and quotes the password in some of its errors
        parts = urlsplit("" if re.search(r"[\x00-\x20\x7f]", url) else url)
        sound = parts.scheme in schemes and parts.port != 0 and bool(parts.hostname) == (parts.scheme != "unix")
    except ValueError:
        sound = False
    if not sound or parts.fragment:
        known = ", ".join((*schemes, *others))
        raise ValueError(f"must be a URL such as {example} ({known}); percent-encode special characters")
    return parts


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _checked(check: Callable[[_Value], object]) -> AfterValidator:
    def validate(value: _Value) -> _Value:
        check(value)
        return value

    return AfterValidator(validate)


def _matching(pattern: str, requirement: str) -> AfterValidator:
    def check(value: str) -> None:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(requirement)

    return _checked(check)


def _all_brokers(values: list[str]) -> None:
    # Together: of what was meant to be a URL, a part between two commas would be shown, and might be of the password.
    found = [_BROKER.fullmatch(value) for value in values]
    if not all(match and 0 < int(match[1] or DEFAULT_KAFKA_PORT) <= MAX_PORT for match in found):
        raise ValueError("must be host:port, several separated by commas")


def _some_included(patterns: list[str]) -> None:
    if all(pattern.startswith("!") for pattern in patterns):
        raise ValueError("must have a pattern without ! besides: * for all other keys")


def _nonzero(value: int) -> None:
    if not value:
        raise ValueError("must be -1 (the broker's default) or greater than 0")


def _http_only(url: str) -> None:
    parts = _server(url, ("http", "https"), "https://login.example.com/oauth2/token")
    if "@" in parts.netloc:
        raise ValueError("must hold no user and no password")


_NAMES = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_WORD = r"[^\s.*>\x00-\x1f\x7f]+"
_PART = r"([^\s.*>{}\x00-\x1f\x7f]|\{(db|prefix|key)\})+"
_PARTS = (
    "must be tokens joined by dots, of {db}, {prefix}, {key} and other characters but space, *, > and a leading $;"
    " {id} may only be the last one"
)
_STREAM_KEY = r"([A-Za-z0-9._:/-]|\{(db|prefix)\}){1,255}"
_TOPIC = r"(?!\.{1,2}\Z)([A-Za-z0-9._-]|\{(db|prefix)\}){1,249}"
_BROKER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?")
_URI = r"([A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"

_Extension = Annotated[
    str, _matching(r"(?!auth=)[A-Za-z]+=[\x21-\x2b\x2d-\x7e]+", "must be name=value, several separated by commas")
]
_Pattern = Annotated[str, _matching("(?s)(?!!\\Z).+", "a pattern between two commas must not be empty")]

HttpUrl = Annotated[str, _checked(_http_only)]
Extensions = Annotated[list[_Extension], BeforeValidator(_split)]
ProviderName = Annotated[
    str, _matching(rf"{_NAMES}:{_NAMES}", "must be module:attribute, as in my_logins:provider; PYTHONPATH leads to it")
]
Uri = Annotated[str, _matching(_URI, "must be a URI reference such as /redis")]
Patterns = Annotated[list[_Pattern], BeforeValidator(_split), _checked(_some_included)]
Namespace = Annotated[str, _matching("[^{}]+", "must not be empty, nor hold braces")]
Stream = Annotated[str, _matching(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}", r"must be without white space and . * > / \ ")]
Subject = Annotated[str, _matching(rf"(?!\$){_PART}(\.{_PART})*(\.\{{id\}})?", _PARTS)]
Topic = Annotated[str, _matching(_TOPIC, "must be of {db}, {prefix}, letters, digits and . _ - (at most 249)")]
StreamKey = Annotated[
    str, _matching(_STREAM_KEY, "must be of {db}, {prefix}, letters, digits and . _ : / - (at most 255)")
]
Brokers = Annotated[list[str], BeforeValidator(_split), _checked(_all_brokers)]
Host = Annotated[str, _matching(r"[^\s\x00-\x1f\x7f]+", "must be an address or a host name")]
NatsToken = Annotated[str, _matching(r"[^\s.*>\x00-\x1f\x7f]{1,255}", "must be one token of a subject")]
NatsPrefix = Annotated[str, _matching(rf"{_WORD}(\.{_WORD})*", "must be tokens joined by dots, as in JS.other.API")]
NatsBytes = Annotated[int, Field(ge=-1, le=2**63 - 1), _checked(_nonzero)]
BrokersOwn = Annotated[int, Field(ge=-1, le=2**31 - 1), _checked(_nonzero)]
"""A number that may be left to the broker, which is what -1 says."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
File = Annotated[Path, _checked(read_file)]
SecretFile = Annotated[Path, _checked(read_secret)]
RedisUrl = Annotated[SecretStr, _checked(lambda url: redis_address(url.get_secret_value()))]
RedisUrlFile = Annotated[Path, _checked(lambda path: redis_address(read_secret(path)))]
NatsUrl = Annotated[SecretStr, _checked(lambda urls: nats_servers(urls.get_secret_value()))]
NatsUrlFile = Annotated[Path, _checked(lambda path: nats_servers(read_secret(path)))]
