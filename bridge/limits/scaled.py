"""Limits whose times can be scaled together, so that tests wait less and every relation between them stays."""

from dataclasses import dataclass, field, fields, replace
from typing import Self

KIB, MIB = 1024, 1024 * 1024


def seconds(default: float) -> float:
    """A time in seconds, which `scaled` scales."""
    return field(default=default, metadata={"time": True})


def milliseconds(default: int) -> int:
    """A time in whole milliseconds, which `scaled` scales."""
    return field(default=default, metadata={"time": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A group of limits."""

    def scaled(self, factor: float) -> Self:
        """The same bounds, with all times multiplied by `factor`, in this group and the groups within it."""
        changes = dict[str, object]()
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Scaled):
                changes[one.name] = value.scaled(factor)
            elif one.metadata.get("time"):
                changes[one.name] = type(value)(value * factor)
        return replace(self, **changes)
