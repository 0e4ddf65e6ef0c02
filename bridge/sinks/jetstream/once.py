"""`BRIDGE_NATS_DEDUPLICATION=subject`: each message has a subject of its own, of which the stream takes one message.

Guarantees: a message is stored once while the stream keeps it, no matter which bridge sends it, and how late. The
stream refuses a repeat. That alone is not an ack: a replicated stream also refuses while the first copy is under way,
and that copy may still be dropped if the leader changes. A message is acked when it can be read.
"""

import asyncio
from collections.abc import Mapping

from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

WINDOW_SECONDS = 10.0
"""Duplicate window of a stream that is created here. It only spares work: a longer one takes memory for each id."""
LOOKUP = "STREAM.MSG.GET"
"""What of the JetStream API reads messages."""
READS = 64
"""Messages that are asked for side by side."""
UNDER_WAY = "the stream refuses a second copy, and has not stored the first one yet"
MOVE = (
    "name a new stream in BRIDGE_NATS_STREAM, which the bridge creates (if both bind the same subjects, with another"
    " first token in BRIDGE_NATS_SUBJECT), and let consumers read the old one to its end"
)


def configured(config: StreamConfig) -> StreamConfig:
    """The configuration of a stream that is to be created, so that it takes one message of a subject."""
    return config.evolve(
        retention=RetentionPolicy.LIMITS,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        duplicate_window=WINDOW_SECONDS,
    )


def unfit(config: StreamConfig) -> str:
    """Why this stream could store a message twice, or drop one for another; empty if it could not."""
    reasons = []
    if config.retention == RetentionPolicy.WORK_QUEUE:
        reasons.append("it is a work queue: what a consumer has acked is gone, and would be stored again")
    elif config.retention == RetentionPolicy.INTEREST:
        reasons.append("it has interest retention: what its consumers have acked is gone, and would be stored again")
    if config.max_msgs_per_subject != 1:
        reasons.append("max_msgs_per_subject is not 1")
    if config.discard != DiscardPolicy.NEW or not config.discard_new_per_subject:
        reasons.append("it does not refuse what is new of a subject (discard=new, discard_new_per_subject)")
    if config.subject_transform is not None:
        reasons.append("it stores messages under other subjects (subject_transform)")
    return "; ".join(reasons)


async def missing(jetstream: JetStreamContext, stream: str, subjects: Mapping[int, str]) -> dict[int, str]:
    """Of messages (by index, with their subjects) whose subject is taken: why each is not known to be stored.

    Those that are not in it are stored.
    """
    turns = asyncio.Semaphore(READS)

    async def look(subject: str) -> str:
        async with turns:
            return await _problem(jetstream, stream, subject)

    problems = await asyncio.gather(*map(look, subjects.values()))
    return {index: problem for index, problem in zip(subjects, problems, strict=True) if problem}


async def _problem(jetstream: JetStreamContext, stream: str, subject: str) -> str:
    try:
        await jetstream.get_last_msg(stream, subject)
    except NotFoundError:
        return UNDER_WAY
    except NoAnswer:
        return f"stream {stream} refuses a second copy, and does not say whether it has the first"
    except APIError as error:
        return f"stream {stream} cannot be read: {error.description} (error {error.err_code})"
    except Error as error:
        return f"stream {stream} cannot be read: {error}"
    return ""


async def may_read(jetstream: JetStreamContext, stream: str, subject: str) -> None:
    """Return if messages of the stream may be looked up. Raises NoAnswer where that is denied; and Error."""
    try:
        await jetstream.get_last_msg(stream, subject)
    except NotFoundError:  # what was asked for is not there
        return
