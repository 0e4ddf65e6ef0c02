"""Records as they go to one partition, and the headers of a message in them."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bridge.contracts import Message
from bridge.sinks.kafka.load import Load

EMPTY_BYTES = 61
"""Of a batch of records without any."""
RECORD_ROOM = 32
"""The most that a record takes beyond its key, body and headers."""
HEADER_ROOM = 10
"""The most that a header takes beyond its name and value."""

MAGIC = 2
"""The version of the format."""
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

Headers = list[tuple[str, bytes]]
Place = tuple[str, int]
"""A topic, and the number of one of its partitions."""


@cache
def _content_type(name: str) -> tuple[str, bytes]:
    """Its header. There are two of them."""
    return "content-type", name.encode()


def headers_of(message: Message) -> Headers:
    """The headers of `message`: its id and content type, and in binary mode the CloudEvents attributes."""
    headers = [("ce_id", message.id.encode()), _content_type(message.content_type)]
    for name, value in message.attributes.items():
        if name != "id":
            headers.append((f"ce_{name}", value.encode()))
    return headers


def size(message: Message, headers: Headers) -> int:
    """The most bytes that `message` adds to a batch of records."""
    bytes_ = len(message.key) + len(message.body) + RECORD_ROOM
    for name, value in headers:
        bytes_ += len(name) + len(value) + HEADER_ROOM
    return bytes_


def alone(message: Message, compression: str) -> bytes:
    """A complete batch of records that holds `message` only, from no particular producer."""
    builder = DefaultRecordBatchBuilder(
        MAGIC,
        CODECS[compression],
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=size(message, headers := headers_of(message)) + EMPTY_BYTES,
    )
    builder.append(0, None, message.key, message.body, headers)
    return bytes(builder.build())


class Records:
    """One batch of Kafka's: messages, perhaps of several publishes, that go to one partition together."""

    __slots__ = ("builder", "bytes", "indices", "loads", "place", "stamps")

    def __init__(self, place: Place, builder: Any) -> None:  # noqa: ANN401 - the client library's
        self.place = place
        self.builder = builder
        self.loads: list[Load] = []
        """Of which publish each message is."""
        self.indices: list[int] = []
        """And its index there."""
        self.bytes = EMPTY_BYTES
        """At most so large."""
        self.stamps: list[tuple[int, int]] = []
        """Of each message the time of its claim and its timestamp, where they have been chosen."""

    def __len__(self) -> int:
        """How many messages."""
        return len(self.indices)

    def add(self, load: Load, index: int, headers: Headers, bytes_: int, timestamp_ms: int | None = None) -> None:
        """One more message, of so many bytes as `size` says. Without a timestamp, it gets that of now."""
        message = load.messages[index]
        self.builder.append(timestamp=timestamp_ms, key=message.key, value=message.body, headers=headers)
        self.loads.append(load)
        self.indices.append(index)
        self.bytes += bytes_

    def by_load(self) -> Iterable[tuple[Load, list[int]]]:
        """Its messages, publish by publish."""
        if len(set(map(id, self.loads))) == 1:  # the usual case
            return [(self.loads[0], self.indices)]
        found: dict[int, tuple[Load, list[int]]] = {}
        for load, index in zip(self.loads, self.indices, strict=True):
            found.setdefault(id(load), (load, []))[1].append(index)
        return found.values()
