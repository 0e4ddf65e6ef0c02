"""Connections that aiokafka forgets when it fails: found in the local variables that its error came through.

Stands for a bug of the library: `AIOKafkaClient.bootstrap` and `create_conn` do not close what they have opened when
they are interrupted or refused (an orderly end over TLS may also take longer than the event loop lasts). Nothing else
leads to these objects. Where a newer version closes them, nothing is found here, and nothing is lost by that.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any


def left_open(error: BaseException | None, kind: type) -> Iterator[Any]:
    """The local variables of that type, in the frames of `error` and its causes."""
    while error is not None:
        for frame in _frames(error.__traceback__):
            yield from (value for value in frame.f_locals.values() if isinstance(value, kind))
        error = error.__cause__


def _frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
