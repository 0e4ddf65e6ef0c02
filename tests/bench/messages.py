"""What the bridge publishes, made ready: for those that only publish."""

from typing import Final

from bridge.cloudevents import Encoder
from bridge.expiration import Expiration, Via
from bridge.sinks.jetstream.headers import CONTENT_TYPE, MESSAGE_ID
from tests.bench.stage import KEY

_NOW_MS: Final = 1_795_346_562_164
KEY_BYTES: Final = (KEY % 1).encode()
_MESSAGE: Final = Encoder("/redis", 0, "structured").encode(
    Expiration("0" * 32, KEY_BYTES, _NOW_MS, _NOW_MS, Via.NOTIFICATION)
)
BODY: Final = _MESSAGE.body


def headers(number: int) -> dict[str, str]:
    """Those of message `number` on NATS."""
    return {MESSAGE_ID: f"{number:032x}", CONTENT_TYPE: _MESSAGE.content_type}


def kafka_headers(number: int) -> list[tuple[str, bytes]]:
    """Those of record `number` on Kafka."""
    return [("ce_id", f"{number:032x}".encode()), ("content-type", _MESSAGE.content_type.encode())]
