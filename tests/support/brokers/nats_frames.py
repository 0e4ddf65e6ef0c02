"""Frames of the NATS protocol, for a proxy to wait for."""

from tests.support.proxy import Matches


def frame(*parts: bytes) -> Matches:
    """Match a frame that contains all of these."""
    return lambda data: all(part in data for part in parts)


CREATE = frame(b"PUB $JS.API.STREAM.CREATE")
PUBLISH = frame(b"HPUB expired.0.")
ACK = frame(b"MSG _INBOX.", b'{"stream":')
