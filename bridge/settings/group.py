"""What every group of settings has: strict fields, secrets that a file may hold, the variables they are set by."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator

from bridge.errors import Refused
from bridge.settings.values import check_quotes, check_text, nats_servers, read_secret, redis_address

_URL_CHECKS: dict[str, Callable[[str], object]] = {
    "redis_url": redis_address,
    "sink_redis_url": redis_address,
    "nats_url": nats_servers,
}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"BRIDGE_{name.upper()}"


def idle(given: AbstractSet[str], prefix: str, requirement: str) -> Iterator[str]:
    """An error for each name in `given` that begins with `prefix`: without the requirement it does nothing."""
    return (f"{variable(name)}: has no effect; {requirement}" for name in sorted(given) if name.startswith(prefix))


class Group(BaseModel):
    """Some settings that belong together."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True, defer_build=True
    )

    _text = field_validator("*", mode="before")(check_text)

    @field_validator("*", mode="before")
    @classmethod
    def _bare(cls, value: object, info: ValidationInfo) -> object:
        """A password may well begin and end with a quote; nothing else does on purpose."""
        name = info.field_name or ""
        return value if name in cls.secrets() and not name.endswith("_url") else check_quotes(value)

    @classmethod
    @cache
    def secrets(cls) -> tuple[str, ...]:
        """Names of what is never printed; `<name>_file` may hold it instead. URLs count: they may hold passwords."""
        return tuple(name for name in cls.model_fields if f"{name}_file" in cls.model_fields)

    def secret(self, name: str) -> str | None:
        """The value of one of `secrets` now: its file is read at each call, so it may change without a restart.

        Raises Refused, naming the variable, where the file has become unreadable or its contents unusable.
        """
        inline: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return inline.get_secret_value() if inline else None
        try:
            value = read_secret(path)
            if name in _URL_CHECKS:
                _URL_CHECKS[name](value)
        except ValueError as error:
            raise Refused(f"{variable(name)}_FILE: {error}") from None
        return value
