"""What a subscribed connection receives, at the byte level."""

from bridge.redis.protocol.notifications import channels

CHANNELS = list(channels(0))
HINT = b"*3\r\n$7\r\nmessage\r\n$22\r\n__keyevent@0__:expired\r\n$%d\r\n%b\r\n"


def hint(key: bytes) -> bytes:
    return HINT % (len(key), key)


def confirmation(channel: bytes, number: int) -> bytes:
    return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:%d\r\n" % (len(channel), channel, number)


CONFIRMED = b"+OK\r\n" + b"".join(confirmation(channel, n + 1) for n, channel in enumerate(CHANNELS))
