"""Which timestamps records are given where a topic limits them (`message.timestamp.before.max.ms`, `.after.max.ms`).

A record has the time of its claim: by that, the look at the end of the topic begins. Where a topic does not take one so
old, it has the time of sending. That is safe: a look begins with the first record that is no older than the claim, and
that one comes no later for a record that seems younger. The other way round is not: a record that seems older than
its claim may lie before all that is looked at, and would be sent once more. So a claim from the future is never given
another time. It waits until the broker takes it, where that is soon, else it becomes a dead letter.
"""

from collections.abc import Sequence
from enum import Enum, auto

WAIT_MS = 60_000
"""A claim from farther ahead is none of ordinary clocks: it does not hold up its shard."""


class Verdict(Enum):
    """What becomes of records that a broker has refused for their timestamps."""

    AGAIN = auto()
    """They are made in another way."""
    LATER = auto()
    NEVER = auto()


class Timestamps:
    """What brokers have shown that they do not take, by topic. All times are Unix milliseconds."""

    def __init__(self) -> None:
        self._oldest: dict[str, int] = {}
        """Claims of that age and more are given the time of sending."""
        self._single: set[str] = set()

    def of(self, topic: str, claimed_ms: int, now_ms: int, limit_ms: int | None) -> int:
        """The timestamp of a claim's record; `limit_ms`: how old the topic says that it may be, if that is known.

        Half of the limit counts: the broker's clock is another one, and to be too early costs nothing.
        """
        age = now_ms - claimed_ms
        limits = [limit for limit in (self._oldest.get(topic), limit_ms and limit_ms // 2) if limit is not None]
        return now_ms if age > 0 and any(age >= limit for limit in limits) else claimed_ms

    def alone(self, topic: str) -> bool:
        """Whether each record has to go by itself, to find the one that is refused."""
        return topic in self._single

    def taken(self, topic: str) -> None:
        """Nothing of these was refused."""
        self._single.discard(topic)

    def refused(self, topic: str, stamps: Sequence[tuple[int, int]], now_ms: int) -> Verdict:
        """Of records that were refused together: `stamps`, each the time of the claim and the timestamp."""
        old = [now_ms - claimed_ms for claimed_ms, stamp in stamps if claimed_ms == stamp and claimed_ms < now_ms]
        if old:
            self._oldest[topic] = min(old) // 2
            return Verdict.AGAIN
        if len(stamps) > 1:
            self._single.add(topic)
            return Verdict.AGAIN
        ((claimed_ms, stamp),) = stamps
        return Verdict.NEVER if claimed_ms == stamp and claimed_ms - now_ms > WAIT_MS else Verdict.LATER
