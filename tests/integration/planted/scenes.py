"""What a misconfiguration and a scene are, of which the other modules here hold the list."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.ground import Ground, Settings
from tests.integration.mends import Apply

PUBLISH = ("--publish",)
NATS_PERMISSIONS = (
    "give the user, in the server's configuration, permissions: { publish: { allow: "
    '["expired.0.*", "$JS.API.STREAM.INFO.EXPIRY", "$JS.API.STREAM.CREATE.EXPIRY", "$JS.API.INFO",'
    ' "$SYS.REQ.USER.INFO"] }, subscribe: { allow: ["_INBOX.>"] } }'
)
"""What fixes each right that is missing."""


@dataclass(frozen=True)
class Fault:
    """A misconfiguration: where `check` shows it, how bad it is, how what was found begins, and the whole remedy."""

    row: str
    level: str
    found: str
    remedy: str
    """In all texts `<port>` and its like stand for what the scene says, `<number>` for any number."""
    by_hand: bool = False
    """Whether its remedy takes another machine, and is not carried out."""


@dataclass
class Scene:
    """Servers on which something is wrong."""

    settings: Settings
    apply: Apply
    names: dict[str, object] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    """What is found there, before or after, and is no matter of this scene: row → level."""
    flags: tuple[str, ...] = ()

    def pattern(self, text: str) -> str:
        """What matches `text` with the scene's names in it."""
        for name, value in self.names.items():
            text = text.replace(f"<{name}>", str(value))
        return re.escape(text).replace("<number>", r"\d+")


Build = Callable[[Ground], Scene]


class Scenes:
    """A part of the list: `scene = Scenes()`, then `@scene(Fault(…), …)` before each function that builds one."""

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        """`marks` are those of each of their tests."""
        self._marks = marks
        self.entered: list[Any] = []
        """Parameters of a test: the function, and all the faults that are to be found there."""

    def __call__(self, *faults: Fault) -> Callable[[Build], Build]:
        """Enter a scene, in which these are all the faults."""

        def enter(build: Build) -> Build:
            self.entered.append(pytest.param(build, faults, id=build.__name__.replace("_", "-"), marks=self._marks))
            return build

        return enter


def changed(settings: Settings) -> Apply:
    """Remedies that are a change of settings."""
    return lambda remedy: settings.update(
        (name.lower(), value) for name, value in re.findall(r"BRIDGE_([A-Z_]+)=([^\s,;]+)", remedy)
    )


def by_hand(remedy: str) -> None:
    """No remedy of the scene is carried out."""
    raise AssertionError(remedy)
