"""What capturing values takes of rights: as in `acl.py`, commands as ACL rules name them, with harmless arguments."""

from collections.abc import Sequence

from bridge.redis.protocol.own_keys import Names

Word = bytes | str | int


def values_needs(names: Names) -> dict[str, Sequence[Word]]:
    """What capturing values takes beyond `needs`, for the bridge's own keys and its connection: likewise."""
    return {
        "client|id": (),
        "client|tracking": ("OFF",),
        "client|caching": ("YES",),  # refused where nothing is tracked
        "zrank": (names.deadlines, "no-key"),
        "zscore": (names.deadlines, "no-key"),
        "zcount": (names.deadlines, 0, 0),
        "hlen": (names.values,),
        "hstrlen": (names.values, "no-field"),
    }


def value_reads(key: Word) -> dict[str, Sequence[Word]]:
    """What capturing values reads of a user's key."""
    return {
        "type": (key,),
        "strlen": (key,),
        "get": (key,),
        "hlen": (key,),
        "hgetall": (key,),
        "llen": (key,),
        "lrange": (key, 0, 0),
        "scard": (key,),
        "smembers": (key,),
        "zcard": (key,),
        "zrange": (key, 0, 0),
        "memory|usage": (key,),
    }


NEWER_VALUE_READS = ("hpexpiretime", "json.get")
"""Likewise, of servers that have the command: else no hash is proven, and no JSON document is read."""
