"""The keys of streams: a template, and an encoding under which any key has a stream of its prefix.

`{prefix}` is the key up to its first `:`, encoded as a token of a NATS subject (`subjects.py`), braces as well; a long
one is cut, and ends in `%-` and the hex BLAKE2b-128 of the whole prefix. So no two prefixes share a stream, and none
has that of the gap record, which has `_gap` in the place of the prefix, or that of test messages, which has `_check`.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from bridge.contracts import Message
from bridge.expiration import CHECK_KEY
from bridge.settings import Settings
from bridge.sinks.subjects import CHECK, GAP, encode_token

MOST = 200
"""Characters of a prefix in the name of a stream."""
CUT = 160
PREFIXES_CACHED = 4096
_PREFIX = "{prefix}"


def encode_prefix(prefix: bytes) -> str:
    """`prefix` as it stands in a key. Injective; never empty, nor longer than `MOST`."""
    text = encode_token(prefix[: MOST + 1]).replace("{", "%7B").replace("}", "%7D")
    if len(text) <= MOST:
        return text
    return f"{text[:CUT]}%-{blake2b(prefix, digest_size=16).hexdigest()}"


def memory_of(stream: bytes) -> bytes:
    """The hash beside a stream that remembers what was appended to it: in the same slot of a cluster."""
    return b"{%b}:appended" % stream


class StreamTemplate:
    """`BRIDGE_SINK_REDIS_STREAM` for one database."""

    def __init__(self, settings: Settings, db: int) -> None:
        """`db`: of the source."""
        self._template = settings.sink_redis_stream.replace("{db}", str(db))
        self.fixed = None if _PREFIX in self._template else self._template.encode()
        """The one stream of all messages; None if it depends on the key."""
        self.of: Callable[[bytes], bytes] = self._make()
        """The stream of a key's expirations."""

    def _make(self) -> Callable[[bytes], bytes]:
        fixed = self.fixed
        if fixed is not None:
            return lambda _key: fixed
        of_prefix = lru_cache(maxsize=PREFIXES_CACHED)(lambda prefix: self._filled(encode_prefix(prefix)))
        return lambda key: of_prefix(key.partition(b":")[0])

    def _filled(self, prefix: str) -> bytes:
        return self._template.replace(_PREFIX, prefix).encode()

    @property
    def check(self) -> bytes:
        """The stream of what `check --publish` appends."""
        return self._filled(CHECK)

    def of_message(self, message: Message) -> bytes:
        """The stream of a message."""
        if message.gap:
            return self.check if message.key == CHECK_KEY else self._filled(GAP)
        return self.of(message.key)

    def without_key(self, message: Message) -> str:
        """The stream of a message, with the template's own words in the place of what comes from a key."""
        return self.of_message(message).decode() if message.gap else self._template
