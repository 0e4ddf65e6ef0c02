"""`BRIDGE_KEYS`: Redis's own glob patterns (`KEYS`, `SCAN MATCH`), matched here on keys as bytes."""

import re
from collections.abc import Callable, Sequence
from zlib import crc32


def matcher(patterns: Sequence[str], shard: int = 0, shards: int = 1) -> Callable[[bytes], object] | None:
    """What answers something true for a key of the shard that any of `patterns` matches; None where every key is one.

    A key's shard is its CRC-32 modulo their number.
    """
    matched = None
    if "*" not in patterns:
        matched = re.compile(b"|".join(_regex(pattern.encode()) for pattern in patterns), re.DOTALL).fullmatch
    if shards == 1:
        return matched
    if matched is None:
        return lambda key: crc32(key) % shards == shard
    return lambda key: crc32(key) % shards == shard and matched(key)


def scan_match(patterns: Sequence[str], shards: int = 1) -> tuple[bytes, bool]:
    """The MATCH of a SCAN that does not miss any matched key, and whether all that it finds is matched."""
    single = patterns[0] if len(patterns) == 1 else "*"
    return single.encode(), shards == 1 and (len(patterns) == 1 or "*" in patterns)


def _regex(glob: bytes) -> bytes:
    """`glob` as a regular expression, by the rules of Redis's `stringmatchlen` (util.c)."""
    if glob and not glob.strip(b"*"):
        return b".+"  # Redis takes nothing but a single `*` for the empty key, and that one never gets here
    out, i = [], 0
    while i < len(glob):
        char = glob[i : i + 1]
        i += 1
        if char == b"*":
            out.append(b".*")
        elif char == b"?":
            out.append(b".")
        elif char == b"[":
            group, i = _group(glob, i)
            out.append(group)
        else:
            if char == b"\\" and i < len(glob):
                char = glob[i : i + 1]
                i += 1
            out.append(re.escape(char))
    return b"(?:" + b"".join(out) + b")"


def _group(glob: bytes, i: int) -> tuple[bytes, int]:
    """The character group behind the `[` at `i - 1`, and the index behind its end (a `]`, or the pattern's end)."""
    negated = glob[i : i + 1] == b"^"
    i += negated
    members: set[int] = set()
    while i < len(glob) and glob[i : i + 1] != b"]":
        if glob[i : i + 1] == b"\\" and i + 1 < len(glob):
            members.add(glob[i + 1])
            i += 2
        elif glob[i + 1 : i + 2] == b"-" and i + 2 < len(glob):
            low, high = sorted((glob[i], glob[i + 2]))
            members.update(range(low, high + 1))
            i += 3
        else:
            members.add(glob[i])
            i += 1
    if negated:
        members = set(range(256)) - members
    if not members:
        return b"(?!)", i + 1
    return b"[" + b"".join(re.escape(bytes([m])) for m in sorted(members)) + b"]", i + 1
