"""The flags of the settings: one for each, but for secrets.

On their own, since they need all settings at hand: what a command line can do without is not imported for it.
"""

import argparse
from collections.abc import Container
from typing import Final

from bridge.cli.once import Once
from bridge.settings import SECRETS, Settings, default, description, variable

_NEVER: Final = frozenset(name for name in SECRETS if not name.endswith("_url"))
"""A URL can do without its password, and mostly does: it is a flag."""
_GROUPS: Final = {"redis": "Redis", "nats": "NATS", "kafka": "Kafka", "http": "HTTP and logs", "log": "HTTP and logs"}


def names() -> list[str]:
    """All flags of settings."""
    return [_flag(field) for field in Settings.model_fields if field not in _NEVER]


def given(options: argparse.Namespace) -> dict[str, str]:
    """The settings that flags give, by field name."""
    return {name: value for name, value in vars(options).items() if name in Settings.model_fields}


def add(command: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Let the command take them, but for some."""
    groups = {title: command.add_argument_group(title) for title in ("general", *dict.fromkeys(_GROUPS.values()))}
    for name, field in Settings.model_fields.items():
        if name in without:
            continue
        if name in _NEVER:
            command.add_argument(
                _flag(name), action=_Secret, dest=name, default=argparse.SUPPRESS, nargs="?", help=argparse.SUPPRESS
            )
            continue
        shown = "" if default(name) == "unset" else f" (default: {default(name)})"
        groups[_GROUPS.get(name.partition("_")[0], "general")].add_argument(
            _flag(name),
            action=Once,
            dest=name,
            default=argparse.SUPPRESS,
            metavar="true|false" if field.annotation is bool else name.rpartition("_")[2].upper(),
            help=f"{description(name)}{shown}".replace("`", "").replace("%", "%%"),
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Secret(argparse.Action):
    """A flag that exists only to say what to do instead."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's signature
        values: object,  # noqa: ARG002 - argparse's signature
        option_string: str | None = None,
    ) -> None:
        parser.error(
            f"{option_string}: a secret is never a flag; set {variable(self.dest)} or use {option_string}-file"
        )
