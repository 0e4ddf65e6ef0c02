"""RESP2: how requests are read and replies are written."""

import hiredis

from tests.simulation.redis.values import Failure, Reply, Status


class Requests:
    """Takes commands out of bytes."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that are complete now."""
        self._reader.feed(data)
        commands: list[list[bytes]] = []
        while isinstance(command := self._reader.gets(), list):
            commands.append(command)
        return commands


def encode(reply: Reply) -> bytes:
    """As Redis sends it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, Status):
        return b"+%b\r\n" % bytes(reply)
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, Failure):
        return b"-%b\r\n" % reply.text
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(map(encode, reply)))
    return b":%d\r\n" % reply
