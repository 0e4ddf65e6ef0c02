"""The Lua scripts, put together from their files.

A line `--- @include "name"` stands for `lua/include/name.lua`, which may include others. Each is put in once, at the
first place that includes it. Redis identifies a script by the SHA-1 of the resulting text.
"""

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_INCLUDE = re.compile(r'--- @include "(\w+)"')


@cache
def script(name: str) -> str:
    """The text of the script `lua/<name>.lua` as it is sent to Redis."""
    return "\n".join(_lines(_folder() / f"{name}.lua", set())) + "\n"


def names() -> list[str]:
    """Of all scripts."""
    return sorted(path.name.removesuffix(".lua") for path in _folder().iterdir() if path.name.endswith(".lua"))


def _folder() -> Traversable:
    return files("bridge.redis.ledger") / "lua"


def _lines(path: Traversable, included: set[str]) -> list[str]:
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        include = _INCLUDE.fullmatch(line)
        if include is None:
            lines.append(line)
        elif include[1] not in included:
            included.add(include[1])
            lines += _lines(_folder() / "include" / f"{include[1]}.lua", included)
    return lines
