"""Settings read for a test from made-up sources, and what a wrong one is answered with."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import Settings, load, variable

S3CRET = "hunter2-s3cret"
ENV_FILE = Path(".env")
"""In the working directory, which is the test's own: missing unless the test writes it."""


def loaded(env_file: Path = ENV_FILE, flags: Mapping[str, str] | None = None, /, **environ: str) -> Settings:
    """`load` with these fields in the environment, and nothing else in it."""
    return _load({variable(name): value for name, value in environ.items()}, env_file, flags or {})


def problems_of(env_file: Path = ENV_FILE, flags: Mapping[str, str] | None = None, /, **environ: str) -> list[str]:
    """What `loaded` answers, as it has to, with a ConfigurationError."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(env_file, flags, **environ)
    return caught.value.problems


def attempted(environ: Mapping[str, str], env_file: Path = ENV_FILE) -> tuple[Settings | None, list[str]]:
    """The settings or the problems; any other exception fails the test."""
    try:
        return _load(environ, env_file, {}), []
    except ConfigurationError as error:
        return None, error.problems


def written(path: Path, contents: str | bytes) -> Path:
    """The path of a file that now has these contents."""
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    return path


def _load(environ: Mapping[str, str], env_file: Path, flags: Mapping[str, str]) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        # A plain dict takes what the real one refuses: NUL, and any surrogate.
        patch.setattr(os, "environ", dict(environ))
        return load(flags, env_file)
