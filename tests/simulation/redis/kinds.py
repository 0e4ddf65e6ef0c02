"""The kinds of servers, and how they differ where the bridge can see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One of them."""

    info: Sequence[str]
    """What INFO says of its version."""
    past: str = "del"
    """What a TTL in the past is notified as."""
    tracks_declared: bool = False
    """Whether of a script those keys are tracked that it declares, instead of those that it reads."""
    knows_no_touch: bool = True
    """Whether it has CLIENT NO-TOUCH."""
    scan_expires_all: bool = False
    """Whether SCAN expires what it passes and its pattern does not match."""
    fields: bool = False
    """Whether fields of hashes may have deadlines."""
    fields_go_when_used: bool = False
    """Whether a field past its deadline goes when it is looked at, and a write takes it for one that is there."""
    field_past: str = "hexpired"
    """What a field's deadline in the past is notified as."""


KINDS: Mapping[str, Kind] = {
    "redis": Kind(["redis_version:7.0.15", "redis_mode:standalone"], tracks_declared=True, knows_no_touch=False),
    "redis8": Kind(
        ["redis_version:8.2.3", "redis_mode:standalone"],
        scan_expires_all=True,
        fields=True,
        fields_go_when_used=True,
        field_past="hdel",
    ),
    "valkey": Kind(
        ["redis_version:7.2.4", "server_name:valkey", "valkey_version:9.1.2", "server_mode:standalone"],
        past="expired",
        fields=True,
    ),
}
