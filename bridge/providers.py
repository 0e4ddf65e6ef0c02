"""Objects of the user's own code that give logins or tokens. A setting names one as `module:attribute`.

Python finds the module in its usual places; `PYTHONPATH` adds to these. No message holds text from that code. A
question to it, or to a service behind a network, may never be answered: see `Questions`.
"""

import asyncio
import importlib
import os
from collections.abc import Callable, Coroutine
from functools import reduce
from typing import Any, Generic, TypeVar

from bridge.clock import Clock
from bridge.errors import ConfigurationError

_Provider = TypeVar("_Provider")
_Answer = TypeVar("_Answer")

HANG_SECONDS, MOST_HANG_SECONDS = 10.0, 600.0
"""After the first, an unanswered question is asked anew; it doubles each time, up to the second."""


def provider(variable: str, name: str, fits: Callable[[object], _Provider | None], kind: str) -> _Provider:
    """What `name` names, or, where that is a class or a function, what it makes.

    `fits` says whether an object is one of `kind`, by returning it. Raises ConfigurationError.
    """
    module, _, attribute = name.partition(":")
    try:
        found: object = reduce(getattr, attribute.split("."), importlib.import_module(module))
        if not isinstance(found, type) and (given := fits(found)) is not None:
            return given
        made = found() if callable(found) else None
    except Exception as error:  # noqa: BLE001 - it is code of others
        raise ConfigurationError([f"{variable}: {name} cannot be used ({words(error)})"]) from None
    given = None if made is None else fits(made)
    if given is None:
        raise ConfigurationError([f"{variable}: {name} is no {kind}, and makes none"])
    return given


def words(error: BaseException) -> str:
    """What a message may say about an error of such code: its kind, because its own words may hold a secret."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    said = ""
    if isinstance(error, ImportError) and error.name:
        said = error.name
    elif isinstance(error, OSError) and error.errno:
        said = os.strerror(error.errno)
    return f"{name}: {said}" if said else name


def is_text(given: object) -> bool:
    """Whether it is a text that can be sent: not empty, and no half of a surrogate pair, as JSON may hold it."""
    return isinstance(given, str) and bool(given) and not any("\ud800" <= char <= "\udfff" for char in given)


class Questions(Generic[_Answer]):
    """One question at a time, for all that wait for its answer.

    A question that hangs is given up, and asked anew, ever more rarely, because each may block a thread for ever. A
    later answer does not count.
    """

    def __init__(self, name: str) -> None:
        """`name`: of its tasks."""
        self._name = name
        self._asking: asyncio.Task[_Answer] | None = None
        self._asked_at = 0.0
        self.given_up = 0
        """How many have been, since the last answer."""

    def ask(self, clock: Clock, work: Callable[[], Coroutine[Any, Any, _Answer]]) -> asyncio.Task[_Answer]:
        """The question that is under way, or a new one. Not to be cancelled; it is, where it is given up."""
        asking, now = self._asking, clock.monotonic()
        if asking is not None and asking.get_loop() is asyncio.get_running_loop():
            if not asking.done():
                if now - self._asked_at < min(HANG_SECONDS * 2.0**self.given_up, MOST_HANG_SECONDS):
                    return asking
                asking.cancel()
                self.given_up += 1
            elif not asking.cancelled():
                self.given_up = 0
        self._asked_at = now
        asking = self._asking = asyncio.create_task(work(), name=self._name)
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever waits will know
        return asking
