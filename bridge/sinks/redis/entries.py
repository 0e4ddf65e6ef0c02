"""What a message looks like in a stream, and where it stands in the outbox.

Redis has no binding of its own in CloudEvents: fields are as Kafka's headers, besides `key` and `body`.
"""

from collections.abc import Iterator

from bridge.contracts import Batch, Message, Origin

Word = bytes | str | int
Place = tuple[bytes, int, int]
"""Line, number, index: see `Origin`."""


def fields_of(message: Message) -> list[Word]:
    """Names and values: the id, the content type, in binary mode the CloudEvents attributes, the key, the body."""
    words: list[Word] = ["ce_id", message.id, "content-type", message.content_type]
    for name, value in message.attributes.items():
        if name != "id":
            words += (f"ce_{name}", value)
    return [*words, "key", message.key, "body", message.body]


def places(batch: Batch, ledger: bytes) -> Iterator[Place]:
    """Where each message of a batch comes from. Several ledgers may append to one stream: their lines differ."""
    for run in batch.runs:
        origin = run.origin or Origin.of(run.shard, run.entry)
        for index in range(run.first, run.first + run.length):
            yield b"%b:%b" % (ledger, origin.line), origin.number, index
