"""The plan of a verification: how many keys, how fast, how long they live, and which of them are controls.

The keys are numbered. A few, evenly spread, are *controls*: they are taken back before their deadline, by turns deleted
and put off, and so must not be announced.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from bridge.errors import ConfigurationError
from bridge.redis.protocol.patterns import matcher
from bridge.settings import Settings

PREFIX = "expiry-bridge-verify"
MOST_KEYS = 1_000_000
MOST_RATE = 50_000
LEAST_TTL_MS, MOST_TTL_MS = 100, 3_600_000
MOST_PATIENCE_MS = 3_600_000
PUT_OFF_MS = 3_600_000
"""Behind the end of a run that goes as planned; so long a key may stay if its deletion fails, too."""

KEYS_PER_CONTROL = 50
FEWEST_CONTROLS, MOST_CONTROLS = 2, 100
_GOLDEN = 0.6180339887498949
"""Its multiples are spread evenly over the unit interval, however many they are, and neighbours are far apart."""


@dataclass(frozen=True)
class Plan:
    """Times in milliseconds. Raises ConfigurationError."""

    keys: int
    """How many keys should expire."""
    rate: int
    """Keys per second."""
    ttl_min_ms: int
    ttl_max_ms: int
    patience_ms: int
    """How long to wait, beyond the last deadline and the last delivery."""
    fields: bool = False
    """Whether the keys are hashes, of each of which a field should expire."""
    run: str = field(init=False, default_factory=lambda: secrets.token_hex(6))
    """Tells the keys of this run from those of any other."""

    def __post_init__(self) -> None:
        problems = [
            f"--{name}: must be {least} to {most}{unit}"
            for name, value, least, most, unit in (
                ("keys", self.keys, 1, MOST_KEYS, ""),
                ("rate", self.rate, 1, MOST_RATE, ""),
                ("ttl-min", self.ttl_min_ms, LEAST_TTL_MS, MOST_TTL_MS, " ms"),
                ("ttl-max", self.ttl_max_ms, LEAST_TTL_MS, MOST_TTL_MS, " ms"),
                ("patience", self.patience_ms, 0, MOST_PATIENCE_MS, " ms"),
            )
            if not least <= value <= most
        ]
        if self.ttl_min_ms > self.ttl_max_ms:
            problems.append(f"--ttl-min: {self.ttl_min_ms} ms is more than --ttl-max, {self.ttl_max_ms} ms")
        if problems:
            raise ConfigurationError(problems)

    @property
    def controls(self) -> int:
        """How many keys should not."""
        return min(max(self.keys // KEYS_PER_CONTROL, FEWEST_CONTROLS), MOST_CONTROLS, self.keys)

    @property
    def total(self) -> int:
        """How many keys are set."""
        return self.keys + self.controls

    @property
    def prefix(self) -> str:
        """Of every key of this run."""
        return f"{PREFIX}:{self.run}:"

    def key(self, number: int) -> bytes:
        """The key of that number, from 0 to `total` - 1."""
        return b"%b%d" % (self.prefix.encode(), number)

    def number(self, key: bytes) -> int | None:
        """The inverse of `key`; None for what is no key of this plan."""
        digits = key.removeprefix(self.prefix.encode())
        if not digits.isdigit() or len(digits) > len(str(self.total)):
            return None
        number = int(digits)
        return number if number < self.total and self.key(number) == key else None

    def is_control(self, number: int) -> bool:
        """Never the last one, whose message so comes after all that might come for controls."""
        share = self.controls, self.total
        return number == 0 or number * share[0] // share[1] != (number - 1) * share[0] // share[1]

    def is_deleted(self, number: int) -> bool:
        """Whether this control is deleted; else it is put off."""
        return number * self.controls // self.total % 2 == 0

    def ttl_ms(self, number: int) -> int:
        """How long it lives: the last one, as long as any."""
        span = self.ttl_max_ms - self.ttl_min_ms
        return self.ttl_max_ms if number == self.total - 1 else self.ttl_min_ms + round(number * _GOLDEN % 1 * span)

    @property
    def length_ms(self) -> int:
        """How long all takes if nothing is late."""
        return self.total * 1000 // self.rate + self.ttl_max_ms

    def unmatched(self, settings: Settings) -> Iterator[bytes]:
        """The keys that `BRIDGE_KEYS`, or `BRIDGE_FIELDS`, leaves out."""
        matched = matcher(settings.bridged_fields() if self.fields else settings.bridged_keys())
        return (key for key in map(self.key, range(self.total)) if matched is not None and not matched(key))
