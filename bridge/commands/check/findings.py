"""What a check finds: a level, what was seen, and, unless all is well, how to fix it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.errors import Unusable
from bridge.settings import Settings

MESSAGE_BYTES = 4096
"""A limit below this is warned of: a message is some 400 bytes and two or three times the key."""


def message_bytes(settings: Settings) -> int:
    """The limit below which is warned: with values, for one that is as large as it may be, in base64."""
    return MESSAGE_BYTES if settings.values is None else MESSAGE_BYTES + -(-settings.values_max_bytes * 4 // 3)


def too_large(settings: Settings) -> str:
    """What does not fit there."""
    return "of longer keys" if settings.values is None else "with larger values"


class Level(StrEnum):
    """How bad it is."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """It works, but not as well or as safely as it should; or that cannot be found out."""
    FAIL = "fail"
    """The bridge cannot work, or cannot keep its promise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. No text holds a secret or a user key."""

    level: Level
    found: str
    remedy: str = ""
    """What to do about it: never empty for a warning or a failure."""


def passed(found: str) -> Finding:
    """All is well."""
    return Finding(Level.PASS, found)


def warning(found: str, remedy: str) -> Finding:
    """Not as it should be, but the bridge works."""
    return Finding(Level.WARN, found, remedy)


def failure(found: str, remedy: str) -> Finding:
    """The bridge cannot work like this."""
    return Finding(Level.FAIL, found, remedy)


def failed_with(error: Unusable, remedy: str) -> Finding:
    """A server that cannot be used; `remedy`: what to do where `error` does not know better."""
    return failure(error.found, error.remedy or remedy)


@dataclass(frozen=True, slots=True)
class Row:
    """A finding, and what it is about."""

    area: str
    """The server, for people: `Redis`, `NATS`, `Kafka`."""
    check: str
    finding: Finding
    nodes: Sequence[str] = ()
    """In a cluster, the primaries of which it was found, where it is a matter of theirs."""
    where: str = ""
    """Where to fix it, for people, if that is not the only server there is."""
