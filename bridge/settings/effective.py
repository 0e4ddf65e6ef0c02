"""The settings as they are in force: each with its value, and with where that comes from.

No secret is in them: a secret is `********`, and a URL has neither user, password nor options.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.settings.group import variable
from bridge.settings.loading import ENV_FILE, Origin, origins
from bridge.settings.model import SECRETS, Settings, folded
from bridge.settings.values import redact_url

MASK = "********"


@dataclass(frozen=True, slots=True)
class Effective:
    """One variable."""

    variable: str
    value: str | None
    """As one would set it; of a secret, what may be shown. None: unset."""
    origin: Origin


def effective(settings: Settings, flags: Mapping[str, str], env_file: Path = ENV_FILE) -> list[Effective]:
    """All of `settings`, which `load` made of the same arguments, in the order of the reference.

    The file that a secret may come from has a line only where there is one. Raises Refused as `Settings.secret` does.
    """
    return [*_effective(settings, origins(flags, env_file))]


def _effective(settings: Settings, found: Mapping[str, Origin]) -> Iterator[Effective]:
    for name in Settings.model_fields:
        origin = found.get(name, "default")
        if name in SECRETS:
            from_file = getattr(settings, f"{name}_file") is not None
            yield Effective(variable(name), _masked(settings, name), "file" if from_file else origin)
        elif folded(name) == name or getattr(settings, name) is not None:
            yield Effective(variable(name), _shown(getattr(settings, name)), origin)


def _masked(settings: Settings, name: str) -> str | None:
    value = settings.secret(name)
    if value is None:
        return None
    if not name.endswith("_url"):
        return MASK
    # A comma separates the URLs of NATS; in a URL of Redis it separates hosts.
    return ",".join(map(_masked_url, value.split(",") if name == "nats_url" else [value]))


def _masked_url(url: str) -> str:
    shown = redact_url(url.strip())
    return shown.replace("://", f"://{MASK}@", 1) if "@" in url else shown


def _shown(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
