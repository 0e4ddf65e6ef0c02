"""Sets keys at an even pace, each so long before its deadline, in the way that the peer asks of whoever writes."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis import Redis

from tests.bench.patterns import DUE, INDEX, PHANTOM, span_end
from tests.bench.spoken import say, told

VALUE: Final = "x" * 32
"""As in the other cases."""
STAYS_SECONDS: Final = 300
"""How much longer than its phantom a key stays."""

Write = Callable[[Any, str, int, float], None]
"""Puts into a pipeline what sets the key: its name, its deadline (Unix ms), the seconds of a clean-up."""


def main(
    port: int, key: str, kind: str, begin_ms: int, count: int, rate: int, ttl_seconds: float, clean_up_seconds: float
) -> None:
    """Set keys, named by a template. `rate` of them expire each second, from `begin_ms` on.

    Says how late the latest was set.
    """
    redis, write, latest = Redis(port=port, protocol=2), WRITES[kind], 0.0
    for number in range(count):
        deadline_ms = begin_ms + number * 1000 // rate
        ahead = deadline_ms / 1000 - ttl_seconds - time.time()
        time.sleep(max(ahead, 0))
        latest = max(latest, -ahead)
        pipe = redis.pipeline(transaction=kind != "plain")
        write(pipe, key % number, deadline_ms, clean_up_seconds)
        pipe.execute()
    say({"late_seconds": latest})


def plain(pipe: Any, key: str, deadline_ms: int, _clean_up_seconds: float) -> None:  # noqa: ANN401 - the library has no types
    """Nothing is asked."""
    pipe.set(key, VALUE, pxat=deadline_ms)


def phantom(pipe: Any, key: str, deadline_ms: int, clean_up_seconds: float) -> None:  # noqa: ANN401 - see above
    """The key stays; its phantom expires, and is in the index of its span."""
    stays_ms = deadline_ms + STAYS_SECONDS * 1000
    index = f"{INDEX}{span_end(deadline_ms, clean_up_seconds)}"
    pipe.set(key, VALUE, pxat=stays_ms)
    pipe.set(PHANTOM + key, "", pxat=deadline_ms)
    pipe.sadd(index, key)
    pipe.pexpireat(index, stays_ms)


def due(pipe: Any, key: str, deadline_ms: int, _clean_up_seconds: float) -> None:  # noqa: ANN401 - see above
    """The deadline is in a sorted set as well."""
    pipe.set(key, VALUE, pxat=deadline_ms)
    pipe.zadd(DUE, {key: deadline_ms})


WRITES: Final[Mapping[str, Write]] = {"plain": plain, "phantom": phantom, "due": due}

if __name__ == "__main__":
    main(**told())
