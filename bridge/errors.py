"""Errors, named by what the caller does next.

Client libraries' exceptions are translated into these once, at the edge (`bridge/redis`, `bridge/sinks`); nothing
above those rooms knows a client library's exception class. No message of these errors ever holds a secret.
"""

from enum import Enum, auto


class BridgeError(Exception):
    """Everything this package raises on purpose."""


class ConfigurationError(BridgeError):
    """The settings cannot work: print `problems`, one line each, and exit with status 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ErrorKind(Enum):
    """What a server's answer is about, where a caller acts on that."""

    OTHER = auto()
    DENIED = auto()
    """Our user lacks a right."""
    DISK = auto()
    """Redis cannot write to its disk, and refuses all writes."""
    MEMORY = auto()
    """Redis's memory is full, and it refuses to store more."""
    REPLICAS = auto()
    """Redis wants more replicas in reach before it writes."""
    CLUSTER_DOWN = auto()


class Unusable(BridgeError):
    """A server that cannot be used: what was found there and, if known, what to do about it.

    The message has both. Code that needs one of them, or acts on the kind, reads the attribute, never the message.
    """

    def __init__(self, found: str, remedy: str = "", kind: ErrorKind = ErrorKind.OTHER) -> None:
        super().__init__(f"{found}{'; ' if ': ' in found else ': '}{remedy}" if remedy else found)
        self.found = found
        self.remedy = remedy
        """What to do, as an imperative; empty if only the operator can find out."""
        self.kind = kind


class Refused(Unusable):
    """A server answered and will not serve us (credentials, rights, version, role): an operator must fix it."""


class NotConnected(Unusable):
    """The server cannot be reached: connect again, with back-off. What was under way may or may not have happened."""
