"""Frames of the ledger's scripts, for a proxy to wait for."""

import hashlib

from bridge.redis.ledger import assembly
from tests.support.proxy import Matches, command


def script(name: str) -> Matches:
    """Match the call of one of the ledger's scripts."""
    digest = hashlib.sha1(assembly.script(name).encode(), usedforsecurity=False).hexdigest().encode()
    return command(b"EVALSHA", lambda words: words[1] == digest)
