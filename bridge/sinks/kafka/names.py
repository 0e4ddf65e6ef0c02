"""The names of topics: a template, and an encoding under which any key has a valid topic.

`{prefix}` is the key up to its first `:`. Of it, letters, digits and `-` stand for themselves; every other byte,
`.` and `_` included, becomes `_XX` (Kafka takes `a.b` and `a_b` for the same name in places); an empty prefix is `_`.
What is too long for the 249 characters of a name is cut, and ends in `_-` and the hex BLAKE2b-128 of the whole prefix.
So no two prefixes share a topic, and none has the topic with a literal `_gap`, which is the gap record's.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from bridge.contracts import Message
from bridge.errors import ConfigurationError

MAX_NAME = 249
SHORTEST_ROOM = 64
"""Characters that a template must leave for each `{prefix}`."""
PREFIXES_CACHED = 4096
CACHED_BYTES = 256
"""Of a prefix that is cached."""

_SAFE = re.compile(rb"[A-Za-z0-9-]+")
_UNSAFE_BYTE = re.compile(rb"[^A-Za-z0-9-]")
_DIGEST_BYTES = 16
_PREFIX = "{prefix}"
GAP = "_gap"


def encode_prefix(prefix: bytes, room: int) -> str:
    """`prefix` in at most `room` characters of a topic's name. Injective; never empty."""
    text = _encoded(prefix[: room + 1])
    if len(text) <= room:
        return text
    tail = f"_-{blake2b(prefix, digest_size=_DIGEST_BYTES).hexdigest()}"
    return text[: room - len(tail)] + tail


def _encoded(prefix: bytes) -> str:
    if _SAFE.fullmatch(prefix):
        return prefix.decode("ascii")
    return _UNSAFE_BYTE.sub(lambda match: b"_%02X" % match[0][0], prefix).decode("ascii") or "_"


class TopicTemplate:
    """`BRIDGE_KAFKA_TOPIC` for one database."""

    def __init__(self, template: str, db: int) -> None:
        """Raises ConfigurationError: the template cannot give valid names, or could give those of others."""
        filled = template.replace("{db}", str(db))
        self._pieces = filled.split(_PREFIX)
        prefixes = len(self._pieces) - 1
        room = MAX_NAME - sum(map(len, self._pieces))
        if room < SHORTEST_ROOM * prefixes:
            raise ConfigurationError(
                [f"BRIDGE_KAFKA_TOPIC: too long: a topic's name has at most {MAX_NAME} characters"]
            )
        if prefixes and not self._pieces[0]:  # a key could put itself into any topic
            raise ConfigurationError(
                ["BRIDGE_KAFKA_TOPIC: must begin with something fixed, as in redis.expired.{prefix}"]
            )
        self.fixed = None if prefixes else filled
        """The one topic of all messages; None if it depends on the key."""
        self.stem = self._pieces[0]
        """What all topics begin with; never empty."""
        self._room = room // prefixes if prefixes else 0
        self.of: Callable[[bytes], str] = self._make(filled)
        """The topic of a key's expiration."""
        self._template = filled
        self._gap = GAP.join(self._pieces)

    def of_message(self, message: Message) -> str:
        """The topic of a message. A gap record has the literal `_gap` in the place of the prefix."""
        return self._gap if message.gap else self.of(message.key)

    def without_key(self, message: Message) -> str:
        """The topic of a message, with the template's own words in the place of what comes from a key."""
        return self._gap if message.gap else self._template

    def _make(self, filled: str) -> Callable[[bytes], str]:
        if self.fixed is not None:
            return lambda _key: filled
        of_prefix = lru_cache(maxsize=PREFIXES_CACHED)(
            lambda prefix: encode_prefix(prefix, self._room).join(self._pieces)
        )

        def of(key: bytes) -> str:
            prefix = key.partition(b":")[0]
            if len(prefix) <= CACHED_BYTES:
                return of_prefix(prefix)
            return encode_prefix(prefix, self._room).join(self._pieces)

        return of
