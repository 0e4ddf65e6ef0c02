"""Going on after a batch of records was refused: stands for aiokafka #1017.

An idempotent producer numbers the records of each partition. When the library gives up a batch, it keeps the numbers:
the partition has a hole from then on, and the broker refuses all that comes after it. But where the broker itself has
refused the batch at its first attempt, nothing of it is stored, and the numbers can be taken back. So one topic that
refuses records does not cost the producer, and with it all others. Where a batch was sent twice, the first attempt may
have been stored: then the numbers stay, and the session has to end.
"""

from typing import Any

from aiokafka import errors
from aiokafka.errors import (
    BrokerResponseError,
    CorruptRecordException,
    InvalidTimestampError,
    InvalidTopicError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.structs import TopicPartition

from bridge.sinks.kafka.records import Place


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc] # the library has no types
    """The library does not know this code, and takes it for an unexpected error of the server."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The record failed the broker's own validation."


errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
OF_SOME_RECORDS = (*TOO_LARGE, InvalidRecordError, CorruptRecordException)
"""Others of the same batch may be taken: it is cut in two and tried again."""
NOT_STORED = (
    *OF_SOME_RECORDS,
    InvalidTimestampError,
    InvalidTopicError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
)
"""Errors with which the broker has stored nothing; the last two, raised by the library where it found no leader."""


def attempt_of(producer: Any, place: Place) -> Any:  # noqa: ANN401 - the library has no types
    """The library's batch, right after `send_batch` took it. None where it keeps them elsewhere."""
    waiting = getattr(getattr(producer, "_message_accumulator", None), "_batches", {})
    batches = waiting.get(TopicPartition(*place))
    return batches[-1] if batches else None


def take_back(producer: Any, place: Place, attempt: Any, error: BaseException) -> bool:  # noqa: ANN401 - likewise
    """Take back the numbers of a batch that failed. False: it may be stored, and the session must end."""
    numbers = getattr(getattr(producer, "_txn_manager", None), "_sequence_numbers", None)
    if not isinstance(error, NOT_STORED) or attempt is None or numbers is None or attempt.retry_count != 1:
        return False
    numbers[TopicPartition(*place)] -= attempt.record_count
    return True
