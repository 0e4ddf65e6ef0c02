"""Frames of the ledger's scripts, for a proxy to wait for."""

import hashlib
from importlib.resources import files

from tests.support.proxy import Matches, command


def script(name: str) -> Matches:
    """Match the call of one of the ledger's scripts."""
    source = files("bridge.redis.ledger").joinpath("lua", f"{name}.lua").read_bytes()
    digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return command(b"EVALSHA", lambda words: words[1] == digest)
