"""Records as they go to one partition, and the headers of a message in them."""

import asyncio
from typing import Any

from bridge.contracts import Message

EMPTY_BYTES = 61
"""Of a batch of records without any."""
RECORD_ROOM = 32
"""The most that a record takes beyond its key, body and headers."""
HEADER_ROOM = 10
"""The most that a header takes beyond its name and value."""

Headers = list[tuple[str, bytes]]
Place = tuple[str, int]
"""A topic, and the number of one of its partitions."""


def headers_of(message: Message) -> Headers:
    """The headers of `message`: its id and content type, and in binary mode the CloudEvents attributes."""
    headers = [("ce_id", message.id.encode()), ("content-type", message.content_type.encode())]
    for name, value in message.attributes.items():
        if name != "id":
            headers.append((f"ce_{name}", value.encode()))
    return headers


def size(message: Message, headers: Headers) -> int:
    """The most bytes that `message` adds to a batch of records."""
    return (
        len(message.key)
        + len(message.body)
        + sum([len(name) + len(value) + HEADER_ROOM for name, value in headers])
        + RECORD_ROOM
    )


class Records:
    """One batch of Kafka's: messages, perhaps of several publishes, that go to one partition together."""

    __slots__ = ("builder", "bytes", "messages", "place", "stored")

    def __init__(self, place: Place, builder: Any) -> None:  # noqa: ANN401 - the client library's
        self.place = place
        self.builder = builder
        self.messages: list[Message] = []
        self.bytes = EMPTY_BYTES
        """At most so large."""
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the broker has them; never, if it is not to be learned whether it has."""

    def add(self, message: Message, headers: Headers, bytes_: int) -> None:
        """One more message, of so many bytes as `size` says."""
        self.builder.append(timestamp=None, key=message.key, value=message.body, headers=headers)
        self.messages.append(message)
        self.bytes += bytes_
