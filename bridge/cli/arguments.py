"""The command line: one flag for each setting (`flags.py`), and the few that a command has of its own.

A secret is never a flag, because every user of the machine can read the flags of a process; and what an unknown flag
was given is never printed, because it may be one.

Settings are imported only for a command that takes them: what says which commands there are is quick.
"""

import argparse
import difflib
import re
from collections.abc import Collection, Sequence
from typing import Final, NoReturn

from bridge import __version__
from bridge.cli.once import Once

_COMMANDS: Final = {
    "run": "bridge expirations until SIGTERM or Ctrl-C",
    "check": "examine what Redis and the broker must provide, and say how to fix what is missing",
    "status": "show the ledger, the outbox, the lease and the dead letters; rates and lag if the bridge answers",
    "dead": "list, show, retry or drop the messages that the broker refused",
    "verify": "set short-lived keys, read the broker, and report what was delivered, missed, duplicated or false",
    "demo": "tell the whole story with embedded servers, in about 15 seconds",
    "settings": "print the reference table of all settings; or, with --effective, those in force",
}
DEMO_SINKS: Final = ("jetstream", "kafka")
_WITH_SETTINGS: Final = ("run", "check", "status", "verify", "settings")
_DEAD: Final = {
    "list": "print the oldest dead letters, without their keys",
    "show": "print one, with its key and the event that the broker refused",
    "retry": "send dead letters again, under the same ids; what the broker acks is removed",
    "drop": "remove dead letters permanently",
}
_LISTED: Final = 50
_PLAN: Final = {
    "keys": (1000, "how many keys to set; the setting BRIDGE_KEYS, patterns, is no flag here: set the variable"),
    "rate": (200, "how many of them per second"),
    "ttl_min_ms": (1000, "how long each lives, at least: 500ms, 2s, 1.5s, 5m"),
    "ttl_max_ms": (5000, "how long each lives, at most"),
    "patience_ms": (30_000, "how long to wait, past the last deadline, while nothing comes"),
}
"""The arguments of `verify`, by name: the default, and the meaning."""
_PLANNED: Final = "planned_"
"""What tells those from settings."""
_EPILOGUE: Final = (
    "Each flag is also a variable in the environment or in a file .env (--redis-url is BRIDGE_REDIS_URL); the flag"
    " wins. Secrets are never flags, since every user of the machine can see those: set BRIDGE_REDIS_PASSWORD and its"
    " like, or name a file (--redis-password-file). The same goes for a URL that holds a password."
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for. Raises SystemExit after --help, --version and errors of usage."""
    parser = _parser(argv)
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        # Only what is certainly a flag's name is repeated: the rest may be a secret.
        name = unknown[0].partition("=")[0]
        if re.fullmatch("--[a-z-]+", name) is None:
            parser.error("unexpected argument")
        from bridge.cli import flags  # noqa: PLC0415 - see the module

        nearest = difflib.get_close_matches(name, flags.names(), n=1)
        parser.error(f"unknown flag {name}" + (f"; the nearest known is {nearest[0]}" if nearest else ""))
    if options.command == "settings" and not options.effective and (options.json or _given(options)):
        parser.error("settings takes other flags only together with --effective")
    return options


def _given(options: argparse.Namespace) -> bool:
    from bridge.cli import flags  # noqa: PLC0415 - see the module

    return bool(flags.given(options))


def planned(options: argparse.Namespace) -> dict[str, int]:
    """What `verify` shall do, as its arguments."""
    return {name: getattr(options, _PLANNED + name, preset) for name, (preset, _) in _PLAN.items()}


def _parser(argv: Collection[str]) -> argparse.ArgumentParser:
    """Only a command that is among these words takes the flags of the settings."""
    parser = _Parser(
        prog="expiry-bridge",
        description="Redis key expirations as durable messages in NATS JetStream, Kafka or Redis Streams.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in _COMMANDS.items():
        configurable = name in _WITH_SETTINGS
        command = commands.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            usage="%(prog)s [flags]" if configurable or name == "demo" else None if name == "dead" else "%(prog)s",
            epilog=_EPILOGUE if configurable else None,
            allow_abbrev=False,
        )
        if name == "settings":
            command.add_argument(
                "--effective",
                action="store_true",
                help="print those in force, each with its origin; secrets are masked",
            )
        if name in {"check", "verify", "settings"}:
            command.add_argument("--json", action="store_true", help="print JSON, for programs")
        if name == "check":
            command.add_argument(
                "--publish", action="store_true", help="also publish a message of the type redis.expiry.check"
            )
        if name == "status":
            form = command.add_mutually_exclusive_group()
            form.add_argument("--json", action="store_true", help="print JSON, for programs")
            form.add_argument("--watch", action="store_true", help="look again every second, until Ctrl-C")
            command.add_argument("--show-keys", action="store_true", help="also show the keys of the next and the last")
        if name == "verify":
            _add_plan(command)
        if configurable and name in argv:
            _add_settings(command, without={*_PLAN, "fields"} if name == "verify" else ())
        if name == "demo":
            command.add_argument(
                "--sink",
                action=Once,
                choices=DEMO_SINKS,
                default=argparse.SUPPRESS,
                help=f"where expirations go (default: {DEMO_SINKS[0]}); kafka needs java and a Kafka at hand",
            )
        if name == "dead":
            _add_actions(command, configurable=name in argv)
    return parser


def _add_settings(command: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    from bridge.cli import flags  # noqa: PLC0415 - see the module

    flags.add(command, without)


def _add_actions(command: argparse.ArgumentParser, *, configurable: bool) -> None:
    """Those of `dead`."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    usage = {"list": "", "show": " ID", "retry": " ID... | --all", "drop": " ID..."}
    for name, purpose in _DEAD.items():
        action = actions.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            usage=f"%(prog)s{usage[name]} [flags]",
            epilog=_EPILOGUE,
            allow_abbrev=False,
        )
        if name in {"list", "show"}:
            action.add_argument("--json", action="store_true", help="print JSON, for programs")
        match name:
            case "list":
                action.add_argument(
                    "--limit", type=_positive, default=_LISTED, metavar="N", help=f"how many (default: {_LISTED})"
                )
                action.add_argument("--show-keys", action="store_true", help="also print the keys")
            case "show":
                action.add_argument("id", metavar="ID", help="from `dead list`")
                action.add_argument("--show-values", action="store_true", help="also print the key's value")
            case "retry":
                which = action.add_mutually_exclusive_group(required=True)
                which.add_argument("ids", nargs="*", default=[], metavar="ID", help="from `dead list`")
                which.add_argument("--all", action="store_true", help="all present dead letters")
            case _:
                action.add_argument("ids", nargs="+", metavar="ID", help="from `dead list`")
        if configurable:
            _add_settings(action)


def _add_plan(command: argparse.ArgumentParser) -> None:
    """Those of `verify`."""
    command.add_argument(
        "--fields",
        action="store_true",
        dest=f"{_PLANNED}fields",
        help="let a field of each key, a hash, expire instead; the setting BRIDGE_FIELDS, patterns, is no flag here",
    )
    for name, (preset, meaning) in _PLAN.items():
        time = name.endswith("_ms")
        command.add_argument(
            "--" + name.removesuffix("_ms").replace("_", "-"),
            action=Once,
            dest=f"{_PLANNED}{name}",
            default=argparse.SUPPRESS,
            type=_milliseconds if time else _positive,
            metavar="TIME" if time else "N",
            help=f"{meaning} (default: {f'{preset // 1000}s' if time else preset})",
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def _milliseconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m)?", text)
    if found is None:
        raise argparse.ArgumentTypeError("must be a time, as in 500ms, 2s, 1.5s or 5m")
    return round(float(found[1]) * {"ms": 1, "m": 60_000}.get(found[2], 1000))


class _Parser(argparse.ArgumentParser):
    """Does not repeat a misplaced word: `--redis-password s3cret run` would make a "command" of the secret."""

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"(?s)invalid choice: .*\(choose", "unknown (choose", message))
