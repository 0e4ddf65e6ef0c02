"""What the answers to a published message mean.

Only what is surely an ack counts as one: some other subscriber of the subject may answer, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import orjson
from nats.aio.msg import Msg

PERMANENT = frozenset({10054, 10097})
"""Error codes that concern this one message and will not change: body or headers larger than the stream takes.

Every other error (stream full, sealed, without a leader, overloaded, or a code that is unknown here) is worth another
try: a guess must not turn into a dead letter.
"""

NOT_STORED = 10077
SUBJECT_TAKEN = "maximum messages per subject exceeded"
"""The description of a `NOT_STORED` where that is the reason. A stream that is full has the same code."""

NO_RESPONDERS = "503"
UNDER_WAY = "the stream has it under way, and has not stored it yet"
"""A replicated stream of a server before 2.11 says so to the second copy of a message, with the sequence 0. The first
may yet be dropped, where the leader changes."""


class Meaning(Enum):
    """What an answer says of its message."""

    ACKED = auto()
    REJECTED = auto()
    """It will never be taken."""
    POSTPONED = auto()
    """It was not taken now."""
    TAKEN = auto()
    """The stream has, or has under way, as many messages of the same subject as it takes, and refuses further ones."""
    UNROUTED = auto()
    """No stream listens on its subject."""
    NONE = auto()
    """Not from a stream: as if it had not come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the broker's words where it gave any."""

    meaning: Meaning
    reason: str = ""


def read(reply: Msg) -> Reply:
    """What `reply` means. Never raises."""
    if not reply.data and (reply.headers or {}).get("Status") == NO_RESPONDERS:
        return Reply(Meaning.UNROUTED)
    try:
        answer = orjson.loads(reply.data)
    except orjson.JSONDecodeError:
        return Reply(Meaning.NONE)
    if not isinstance(answer, dict):
        return Reply(Meaning.NONE)
    error = answer.get("error")
    if isinstance(error, dict):
        reason = f"{error.get('description', 'error')} (error {error.get('err_code', error.get('code'))})"
        return Reply(_meaning(error), reason)
    sequence = answer.get("seq")
    if "stream" not in answer or type(sequence) is not int or sequence < 0:
        return Reply(Meaning.NONE)
    return Reply(Meaning.ACKED) if sequence else Reply(Meaning.POSTPONED, UNDER_WAY)


def _meaning(error: Mapping[str, object]) -> Meaning:
    code = error.get("err_code")
    if code in PERMANENT:
        return Meaning.REJECTED
    if code == NOT_STORED and error.get("description") == SUBJECT_TAKEN:
        return Meaning.TAKEN
    return Meaning.POSTPONED
