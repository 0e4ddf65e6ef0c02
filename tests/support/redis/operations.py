"""Batches as tests look at them: one operation after the other, of which kind, and in which command they are sent."""

from collections.abc import Callable, Sequence

import msgpack

from bridge.redis.protocol.operations import (
    ClosedGap,
    Operation,
    appeared,
    each,
    expired,
    forget,
    gap_closed,
    gone,
    placed,
    resolve,
    scan,
)
from tests.support.proxy import Matches, command

EXPIRED, GONE = expired(b""), gone(b"")
RESOLVE, FORGET = resolve(b"", b"", b"", b""), forget(b"")
APPEARED, PLACED, SCAN = appeared(b""), placed(b"", 0, b""), scan(b"", 0, 0, b"", b"")
GAP_CLOSED = gap_closed(ClosedGap("", 0, 0, "", None))
"""An example of each kind."""


def operations_in(batch: Sequence[bytes]) -> list[Operation]:
    """What a batch consists of. Raises KeyError for what is no batch."""
    return list(each(batch))


def alike(operation: Operation, *examples: Operation) -> bool:
    """Whether the operation is of the kind of one of the examples."""
    return operation[0] in {example[0] for example in examples}


def batch_with(where: Callable[[list[Operation]], bool]) -> Matches:
    """For a proxy: a batch with such operations."""
    return command(b"EVALSHA", lambda words: where(_sent(words)))


def batch_with_any(*examples: Operation) -> Matches:
    """For a proxy: a batch with an operation of one of these kinds."""
    return batch_with(lambda operations: any(alike(operation, *examples) for operation in operations))


def claim_of(key: bytes) -> Matches:
    """For a proxy: the batch that handles the `expired` notification of the key."""
    return batch_with(lambda operations: expired(key) in operations)


def _sent(words: Sequence[bytes]) -> list[Operation]:
    """The operations of an EVALSHA of `apply.lua`; none if it is another script's."""
    arguments = words[3 + int(words[2]) :]
    try:
        return operations_in(msgpack.unpackb(arguments[4], raw=True))
    except (LookupError, TypeError, ValueError):
        return []
