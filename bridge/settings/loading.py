"""Reading the settings: pydantic-settings reads and ranks the sources; here is what it leaves to us.

It lets unknown variables pass, and of malformed lines it only warns: both are problems here. Its errors name fields,
over several lines, and show values: ours are one line each, name the variable, and hold no secret.
Of a variable set twice in `.env` the last counts. There `${NAME}` stands for another variable's value, in quotes, too:
a secret that has to hold `${` itself goes into the environment or a file of its own (`BRIDGE_…_FILE`).
"""

import difflib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from bridge.errors import ConfigurationError
from bridge.settings.group import variable
from bridge.settings.model import SECRETS, Settings
from bridge.settings.values import LogFormat, read_file

Origin = Literal["default", ".env", "environment", "flag", "file"]
"""Where a value comes from; `file`: the one that the variable `…_FILE` names."""

_ENCODING = "utf-8-sig"  # a byte order mark is no part of the first name
_VARIABLES = [variable(name) for name in Settings.model_fields]
_PLAIN = {
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
}


_SOURCES = SettingsConfigDict(
    env_prefix="BRIDGE_",
    env_ignore_empty=True,
    env_file_encoding=_ENCODING,
    enable_decoding=False,  # lists are separated by commas, they are not JSON
    defer_build=True,
    extra="ignore",  # others' variables in `.env`; what looks like ours, `load` has judged by then
)
ENV_FILE = Path(".env")
"""In the working directory."""


class _Loaded(Settings, BaseSettings):
    model_config = _SOURCES


class _LogFormat(BaseSettings):
    model_config = _SOURCES
    log_format: LogFormat | None = None


def log_format(flags: Mapping[str, str], env_file: Path = ENV_FILE) -> LogFormat | None:
    """The form in which to say that settings are wrong: the one they ask for, as far as they can be read."""
    given: dict[str, Any] = {name: value for name, value in flags.items() if value and name in _LogFormat.model_fields}
    try:
        return _LogFormat(_env_file=env_file, **given).log_format
    except (ValidationError, OSError, UnicodeDecodeError):
        return None


def exposed(flags: Mapping[str, str]) -> list[str]:
    """The variables to use instead of flags whose URLs hold a password, or a token (`nats://token@host`)."""
    redis = r"://[^/?#@]*:[^/?#@]+@"
    secret = {"redis_url": redis, "sink_redis_url": redis, "nats_url": r"://[^/?#@]+@"}
    return [variable(name) for name, found in secret.items() if re.search(found, flags.get(name, ""))]


def load(flags: Mapping[str, str], env_file: Path = ENV_FILE) -> Settings:
    """The settings from flags (by field name), environment and `.env` (which may be missing), in this precedence.

    Raises ConfigurationError with one line per problem, which begins with the variable's name (or with the path of a
    `.env` that cannot be read).
    """
    problems = [*_unknown({*map(variable, flags), *os.environ, *_names_in(env_file)})]
    given: dict[str, Any] = {name: value for name, value in flags.items() if value}
    try:
        settings = _Loaded(_env_file=env_file, **given)
    except ValidationError as error:
        problems.extend(_problem(detail) for detail in error.errors(include_url=False))
    except ConfigurationError as error:
        problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return settings


def origins(flags: Mapping[str, str], env_file: Path = ENV_FILE) -> dict[str, Origin]:
    """Where `load` took each field from, of those that are set. It has to have accepted the same arguments before."""
    ranked: list[tuple[Origin, Mapping[str, object]]] = [
        (".env", DotEnvSettingsSource(_Loaded, env_file=env_file)()),
        ("environment", EnvSettingsSource(_Loaded)()),
        ("flag", {name: value for name, value in flags.items() if value}),
    ]
    return {name: origin for origin, given in ranked for name in given}


def _unknown(names: set[str]) -> Iterator[str]:
    # The library takes a known name in any case; of two that differ in nothing else, it would drop one silently.
    folded = {name.lower() for name in _VARIABLES}
    for name in sorted(names.difference(_VARIABLES)):
        if name.startswith("BRIDGE_") or name.lower() in folded:
            nearest = difflib.get_close_matches(name.upper(), _VARIABLES, n=1, cutoff=0)[0]
            # Kubernetes sets such variables for every Service of the namespace whose name begins with "bridge".
            link = " (if Kubernetes set it: enableServiceLinks: false)" if re.search("_SERVICE_|_PORT", name) else ""
            yield f"{repr(name[:100])[1:-1]}: unknown; the nearest known is {nearest}{link}"


def _names_in(path: Path) -> set[str]:
    try:
        text = read_file(path).decode(_ENCODING) if path.exists() else ""
    except (OSError, ValueError) as error:
        reason = "must be UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise ConfigurationError([f"{path}: {reason}"]) from None
    bindings = list(parse_stream(io.StringIO(text, newline=None)))
    # The file may well be shared with other programs: what is not ours is not judged.
    wrong = [binding.original for binding in bindings if binding.error and "BRIDGE_" in binding.original.string.upper()]
    if wrong:
        # The empty lines before a line count as its beginning.
        lines = [line + text[: len(text) - len(text.lstrip())].count("\n") for text, line in wrong]
        raise ConfigurationError([f"{path}: line {line} cannot be understood; must be NAME=value" for line in lines])
    return {binding.key for binding in bindings if binding.key}


def _problem(error: ErrorDetails) -> str:
    name, value = str(error["loc"][0]), error["input"]
    reason = _PLAIN.get(error["type"], error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    # A path may be the secret itself, set by mistake; what looks like a URL may hold a password.
    secret = name in SECRETS or name.endswith("_file")
    hidden = secret or not isinstance(value, str) or "@" in value or "://" in value
    return f"{variable(name)}: {'the value' if hidden else repr(value[:100])} cannot be used; {reason}"
