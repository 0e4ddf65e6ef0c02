"""`BRIDGE_KEYS`: Redis's own glob patterns (`KEYS`, `SCAN MATCH`), matched here on keys as bytes.

A key is bridged if a pattern matches it and no `!pattern` does. One match takes at most a few steps for each pair of a
byte of the patterns and a byte of the key, for any pattern and key. This works because each `*` but the last binds to
the first place where what follows it fits, and never tries another. The parts between two `*` have fixed lengths, so
the first place is as good as any.
"""

import re
from collections.abc import Callable, Sequence
from zlib import crc32

_EXCLUDES = "!"


def included(patterns: Sequence[str]) -> list[str]:
    """The patterns of which one must match."""
    return [pattern for pattern in patterns if not pattern.startswith(_EXCLUDES)]


def excluded(patterns: Sequence[str]) -> list[str]:
    """The patterns of which none may match, without their `!`."""
    return [pattern[1:] for pattern in patterns if pattern.startswith(_EXCLUDES)]


def matcher(patterns: Sequence[str], shard: int = 0, shards: int = 1) -> Callable[[bytes], object] | None:
    """A function that is true for the shard's keys that should be bridged; None if that is every key.

    A key's shard is its CRC-32 modulo their number.
    """
    regex = expression(patterns)
    matched = None if regex is None else re.compile(regex, re.DOTALL).fullmatch
    if shards == 1:
        return matched
    if matched is None:
        return lambda key: crc32(key) % shards == shard
    return lambda key: crc32(key) % shards == shard and matched(key)


def matches(patterns: Sequence[str], key: bytes) -> bool:
    """Whether the key should be bridged, in any shard."""
    matched = matcher(patterns)
    return matched is None or bool(matched(key))


def scan_match(patterns: Sequence[str], shards: int = 1) -> tuple[bytes, bool]:
    """The MATCH of a SCAN that misses no matched key, and whether it finds only matched keys."""
    wanted = included(patterns)
    single = wanted[0] if len(wanted) == 1 else "*"
    exact = shards == 1 and not excluded(patterns) and (len(wanted) == 1 or "*" in wanted)
    return single.encode(), exact


def expression(patterns: Sequence[str]) -> bytes | None:
    """The regular expression, with `.` for any byte, that fully matches the keys to bridge; None for all keys."""
    wanted, unwanted = included(patterns), excluded(patterns)
    if "*" in wanted:
        if not unwanted:
            return None
        wanted = ["*"]
    regex = _any_of(wanted)
    return rb"(?!%b\Z)%b" % (_any_of(unwanted), regex) if unwanted else regex


def _any_of(globs: Sequence[str]) -> bytes:
    return b"(?:" + b"|".join(_regex(glob.encode()) for glob in globs) + b")"


def _regex(glob: bytes) -> bytes:
    """`glob` as a regular expression, by the rules of Redis's `stringmatchlen` (util.c)."""
    if len(glob) > 1 and not glob.strip(b"*"):
        return b".+"  # Redis takes nothing but a single `*` for the empty key
    first, *others = _between_stars(glob)
    if not others:
        return first
    *middle, last = others
    return first + b"".join(b"(?>.*?" + part + b")" for part in middle if part) + b".*" + last


def _between_stars(glob: bytes) -> list[bytes]:
    """The parts before, between and after the stars, as regular expressions of fixed lengths."""
    parts, i = [b""], 0
    while i < len(glob):
        char = glob[i : i + 1]
        i += 1
        if char == b"*":
            parts.append(b"")
            continue
        if char == b"?":
            one = b"."
        elif char == b"[":
            one, i = _group(glob, i)
        else:
            if char == b"\\" and i < len(glob):
                char = glob[i : i + 1]
                i += 1
            one = re.escape(char)
        parts[-1] += one
    return parts


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
