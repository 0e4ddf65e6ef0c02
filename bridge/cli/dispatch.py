"""The command line: flags to settings, errors to exit statuses.

Exit status: 0 done or drained, 1 failed, 2 bad configuration or usage (one line per error), 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bridge.cli.arguments import DEMO_SINKS, parse, planned
from bridge.errors import BridgeError, ConfigurationError

if TYPE_CHECKING:
    from bridge.limits import Limits
    from bridge.settings import Settings


def dispatch(arguments: Sequence[str], limits: "Limits | None" = None) -> int:
    """Run one subcommand; returns the exit status. `limits` of the service: see `main`."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # there is none where another object took its place
        if reconfigure is not None:
            reconfigure(errors="replace")  # what this locale cannot show
    try:
        status = _dispatch(arguments, limits)
        sys.stdout.flush()  # a broken pipe has to show here: at the interpreter's exit it could not be handled
    except ConfigurationError as error:
        for problem in error.problems:
            _complain(problem)
        return 2
    except BridgeError as error:
        _complain(f"expiry-bridge: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left. What is still buffered goes nowhere, and quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _dispatch(arguments: Sequence[str], limits: "Limits | None") -> int:
    try:
        options = parse(arguments)
    except SystemExit as stop:  # argparse's way to end after --help, --version and errors of usage
        return stop.code if isinstance(stop.code, int) else 2
    # All that follows is imported late: `--help` must not wait for the settings, nor their errors for client libraries.
    from bridge.cli.flags import given  # noqa: PLC0415 - see above
    from bridge.settings import SinkKind, load, reference  # noqa: PLC0415 - see above

    if options.command == "settings" and not options.effective:
        sys.stdout.write(reference())
        return 0
    if options.command == "demo":
        from bridge.commands.demo import demo  # noqa: PLC0415 - see above

        return demo(sink=SinkKind(getattr(options, "sink", DEMO_SINKS[0])))
    flags = given(options)
    if options.command == "run":
        return _run(flags, limits)
    settings = load(flags)
    _warn(settings, flags)
    if options.command == "settings":
        from bridge.commands.settings import show  # noqa: PLC0415 - likewise

        return show(settings, flags, as_json=options.json)
    return _with_settings(settings, options)


def _run(flags: Mapping[str, str], limits: "Limits | None") -> int:
    """Whatever ends it is an event in its log, whose reader may understand nothing else."""
    from bridge.settings import load, log_format  # noqa: PLC0415 - see `_dispatch`

    try:
        settings = load(flags)
    except ConfigurationError as error:
        from bridge.telemetry import logs  # noqa: PLC0415 - see `_dispatch`

        logs.configure("info", log_format(flags))
        for problem in error.problems:
            logs.refused(problem)
        return 2
    _warn(settings, flags)
    from bridge.commands.run import run  # noqa: PLC0415 - likewise

    return run(settings, limits=limits)


def _warn(settings: "Settings", flags: Mapping[str, str]) -> None:
    from bridge.settings import exposed  # noqa: PLC0415 - see `_dispatch`

    if names := exposed(flags):
        from bridge.telemetry import logs  # noqa: PLC0415 - see `_dispatch`

        logs.configure(settings.log_level, settings.log_format)
        for name in names:
            logs.secret_exposed(name)


def _with_settings(settings: "Settings", options: argparse.Namespace) -> int:
    match options.command:
        case "check":
            from bridge.commands.check import check  # noqa: PLC0415 - see `_dispatch`

            return check(settings, as_json=options.json, publish=options.publish)
        case "status":
            from bridge.commands.status import status  # noqa: PLC0415 - likewise

            return status(settings, as_json=options.json, watch=options.watch, show_keys=options.show_keys)
        case "dead":
            return _dead(settings, options)
        case "verify":
            from bridge.commands.verify import verify  # noqa: PLC0415 - likewise

            return verify(settings, as_json=options.json, fields=options.planned_fields, **planned(options))
        case _:
            raise AssertionError(options.command)


def _dead(settings: "Settings", options: argparse.Namespace) -> int:
    from bridge.commands import dead  # noqa: PLC0415 - see `_dispatch`

    match options.action:
        case "list":
            return dead.list_letters(settings, limit=options.limit, show_keys=options.show_keys, as_json=options.json)
        case "show":
            return dead.show_letter(settings, options.id, show_value=options.show_values, as_json=options.json)
        case "retry":
            return dead.retry_letters(settings, None if options.all else options.ids)
        case _:
            return dead.drop_letters(settings, options.ids)


def _complain(text: str) -> None:
    sys.stderr.write(" ".join(text.split()) + "\n")
