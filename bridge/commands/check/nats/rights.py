"""What a NATS user may publish and receive, as the server itself tells: nothing is tried."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from bridge.commands.check.findings import Finding, failure, passed, warning
from bridge.commands.check.nats.remedies import NatsTools
from bridge.sinks.subjects import covers, overlaps


@dataclass(frozen=True, slots=True)
class Rights:
    """Of one user. Patterns are subjects, which may hold wildcards."""

    user: str
    allowed: Sequence[str] | None
    """What it may publish to; None: everything."""
    denied: Sequence[str]
    """What of that it may not."""

    def every(self, subject: str) -> bool:
        """Whether it may publish to all that `subject` stands for."""
        allowed = self.allowed is None or any(covers(pattern, subject) for pattern in self.allowed)
        return allowed and not any(overlaps(pattern, subject) for pattern in self.denied)

    def some(self, subject: str) -> bool:
        """Whether it may publish to a part of it."""
        allowed = self.allowed is None or any(overlaps(pattern, subject) for pattern in self.allowed)
        return allowed and not any(covers(pattern, subject) for pattern in self.denied)


def rights(answer: bytes) -> Rights:
    """What the answer to USER_INFO says. Raises ValueError: it is none."""
    try:
        about = orjson.loads(answer)["data"]
        publish = about.get("permissions", {}).get("publish", {})
        return Rights(str(about["user"]), publish.get("allow"), publish.get("deny") or ())
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError("this is no answer about a user") from error


def judge(known: Rights | None, tools: NatsTools) -> Finding:
    """Whether it may publish what the bridge publishes. What else it needs, the other checks have used."""
    subjects = tools.subjects.published
    wanted = ", ".join(subjects)
    if known is None:
        return warning("cannot be read: the user may not ask", "try it: expiry-bridge check --publish")
    user = f"user {known.user}" if known.user else "the user"  # no name is set
    if not any(map(known.some, subjects)):
        return failure(f"{user} may not publish to {wanted}", tools.permissions())
    if not all(map(known.every, subjects)):
        found = f"{user} may not publish to all of {wanted}: other messages become dead letters"
        return warning(found, tools.permissions())
    return passed(f"{user} may publish to {wanted}")
