"""The headers of one message, by the CloudEvents NATS binding: values are percent-encoded, as HTTP's are.

`content-type` identifies structured mode. In binary mode the NATS binding has the data's type in `ce-datacontenttype`,
the HTTP binding in `content-type`: it is in both, so that a reader of either kind understands the message.
"""

import re
from collections.abc import Mapping

from bridge.contracts import Message

MESSAGE_ID = "Nats-Msg-Id"
CONTENT_TYPE = "content-type"
ATTRIBUTE_PREFIX = "ce-"
DATA_CONTENT_TYPE = "ce-datacontenttype"

_ENCODED = re.compile(r"[^!#$&-~]")  # space, double quote, percent, and all that is not printable ASCII
_BLOCK_BYTES = len("NATS/1.0\r\n\r\n")
_LINE_BYTES = len(": \r\n")


def encode_value(value: str) -> str:
    """`value` percent-encoded (as UTF-8), so that no value can end its line or lose a space."""
    return _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), value)


def headers_of(message: Message) -> dict[str, str]:
    """The headers of `message`: its id, its content type, and in binary mode the CloudEvents attributes."""
    headers = {MESSAGE_ID: message.id, CONTENT_TYPE: message.content_type}
    if message.attributes:
        headers[DATA_CONTENT_TYPE] = message.content_type
        for name, value in message.attributes.items():
            headers[ATTRIBUTE_PREFIX + name] = encode_value(value)
    return headers


def block_of(message: Message) -> str:
    """The headers of `message` as the protocol has them. All of it is ASCII."""
    if not message.attributes:  # the hot path
        return f"NATS/1.0\r\n{MESSAGE_ID}: {message.id}\r\n{CONTENT_TYPE}: {message.content_type}\r\n\r\n"
    lines = [f"{name}: {value}\r\n" for name, value in headers_of(message).items()]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n"


def size(headers: Mapping[str, str]) -> int:
    """How many bytes the headers take, all in ASCII. They count against the server's `max_payload`."""
    return _BLOCK_BYTES + sum(len(name) + len(value) + _LINE_BYTES for name, value in headers.items())
