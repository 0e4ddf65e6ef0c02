"""Errors, named by what the caller does next.

Client libraries' exceptions are translated into these once, at the edge (`bridge/redis`, `bridge/sinks`); nothing
above those rooms knows a client library's exception class. No message of these errors ever holds a secret.
"""

from collections.abc import Mapping


class BridgeError(Exception):
    """Everything this package raises on purpose."""


class ConfigurationError(BridgeError):
    """The settings cannot work: print `problems`, one line each, and exit with status 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refused(BridgeError):
    """A server answered and will not serve us (credentials, rights, version, role): somebody must mend it.

    The message says what was found and how to mend it.
    """


class NotConnected(BridgeError):
    """The server cannot be reached: connect again, with back-off. What was under way may or may not have happened."""


class Retryable(BridgeError):
    """The server is there but did not take it now: send the same again, under the same ids, after a back-off."""


class Rejected(BridgeError):
    """The broker will never take some messages of the batch: dead letters. All the *others* of the batch are acked.

    `reasons` maps the index in the batch to the reason, in the broker's words where it gave any.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons)} message(s) rejected: {next(iter(reasons.values()))}")
        self.reasons = dict(reasons)
