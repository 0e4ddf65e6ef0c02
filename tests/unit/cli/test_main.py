"""The command line: flags to settings, errors to exit statuses, and no secret in what it prints."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from bridge import __version__
from bridge.cli.main import main
from bridge.errors import ConfigurationError, NotConnected, Refused
from bridge.limits import Limits
from bridge.settings import SECRETS, Settings, SinkKind, reference

ROOT = Path(__file__).parents[2]
S3CRET = "hunter2-s3cret"
WITH_SETTINGS = ("run", "check", "status", "dead list", "dead show ID", "dead retry --all", "dead drop ID")
PLAN = {"keys": 1000, "rate": 200, "ttl_min_ms": 1000, "ttl_max_ms": 5000, "patience_ms": 30_000, "fields": False}
"""Of `verify`, by default."""


class Commands:
    """Stands in for the modules of the subcommands: notes what they are called with, answers what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.settings = Settings()
        self.answer: int | BaseException = 0

    def called(self, name: str, settings: Settings | None = None, **options: object) -> int:
        """What every subcommand does here."""
        self.calls.append((name, options))
        self.settings = settings or self.settings
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def told(self, name: str, settings: Settings, which: object = None, **options: object) -> int:
        """What every action of `dead` does here."""
        return self.called(name, settings, **({} if which is None else {"which": which}), **options)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()

    def module(name: str) -> ModuleType:
        made = ModuleType(f"bridge.commands.{name}")

        def command(settings: Settings | None = None, **options: object) -> int:
            return fake.called(name, settings, **options)

        setattr(made, name, command)
        return made

    for name in ("run", "check", "status", "verify", "demo"):
        monkeypatch.setitem(sys.modules, f"bridge.commands.{name}", module(name))
    for action in ("list_letters", "show_letter", "retry_letters", "drop_letters"):
        monkeypatch.setattr(f"bridge.commands.dead.{action}", partial(fake.told, action))
    return fake


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# Which command gets what


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        (["run"], ("run", {"limits": None})),
        (["check"], ("check", {"as_json": False, "publish": False})),
        (["check", "--json", "--publish"], ("check", {"as_json": True, "publish": True})),
        (["status"], ("status", {"as_json": False, "watch": False, "show_keys": False})),
        (["status", "--json"], ("status", {"as_json": True, "watch": False, "show_keys": False})),
        (["status", "--watch", "--show-keys"], ("status", {"as_json": False, "watch": True, "show_keys": True})),
        (["verify"], ("verify", {**PLAN, "as_json": False})),
        (
            ["verify", "--json", "--keys", "9", "--rate=8", "--ttl-min=1.5s", "--ttl-max", "2m", "--patience", "500ms"],
            (
                "verify",
                {
                    "keys": 9,
                    "rate": 8,
                    "ttl_min_ms": 1500,
                    "ttl_max_ms": 120_000,
                    "patience_ms": 500,
                    "fields": False,
                    "as_json": True,
                },
            ),
        ),
        (["verify", "--fields"], ("verify", {**PLAN, "fields": True, "as_json": False})),
        (["verify", "--ttl-min", "2"], ("verify", {**PLAN, "ttl_min_ms": 2000, "as_json": False})),
        (["demo"], ("demo", {"sink": SinkKind.JETSTREAM})),
        (["demo", "--sink", "jetstream"], ("demo", {"sink": SinkKind.JETSTREAM})),
        (["demo", "--sink=kafka"], ("demo", {"sink": SinkKind.KAFKA})),
        (["dead", "list"], ("list_letters", {"limit": 50, "show_keys": False, "as_json": False})),
        (
            ["dead", "list", "--limit=3", "--show-keys", "--json"],
            ("list_letters", {"limit": 3, "show_keys": True, "as_json": True}),
        ),
        (["dead", "show", "a"], ("show_letter", {"which": "a", "show_value": False, "as_json": False})),
        (["dead", "show", "a", "--json"], ("show_letter", {"which": "a", "show_value": False, "as_json": True})),
        (["dead", "show", "a", "--show-values"], ("show_letter", {"which": "a", "show_value": True, "as_json": False})),
        (["dead", "retry", "a", "b"], ("retry_letters", {"which": ["a", "b"]})),
        (["dead", "retry", "--all"], ("retry_letters", {})),
        (["dead", "drop", "a", "b"], ("drop_letters", {"which": ["a", "b"]})),
    ],
)
@pytest.mark.parametrize("status", [0, 1])
def test_a_subcommand_is_called_and_its_status_returned(
    commands: Commands, argv: list[str], call: tuple[str, dict[str, object]], status: int
) -> None:
    commands.answer = status
    assert main(argv) == status
    assert commands.calls == [call]


def test_the_service_has_the_limits_that_a_test_chooses(commands: Commands) -> None:
    limits = Limits(close=9)

    assert main(["run"], limits) == 0

    assert commands.calls == [("run", {"limits": limits})]


def test_settings_prints_the_reference(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert capsys.readouterr().out == reference()
    assert commands.calls == []


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"expiry-bridge {__version__}\n"


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_flags_become_settings(commands: Commands, command: str) -> None:
    assert (
        main(
            [
                *command.split(),
                "--sink",
                "stdout",
                "--keys=a:*,b:*",
                "--nats-provision",
                "false",
                "--scan-interval",
                "5",
            ]
        )
        == 0
    )
    settings = commands.settings
    assert (settings.sink, settings.keys, settings.nats_provision) == (SinkKind.STDOUT, ["a:*", "b:*"], False)
    assert settings.scan_interval == 5


def test_the_number_of_keys_to_verify_is_not_mistaken_for_their_patterns(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_KEYS", "a:*,b:*")
    assert main(["verify", "--keys", "7", "--sink", "kafka"]) == 0
    assert (commands.settings.keys, commands.settings.sink) == (["a:*", "b:*"], SinkKind.KAFKA)
    assert commands.calls == [("verify", {**PLAN, "keys": 7, "as_json": False})]


def test_flags_win_over_the_environment(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SINK", "kafka")
    monkeypatch.setenv("BRIDGE_NATS_STREAM", "ENV")
    assert main(["run", "--sink", "stdout"]) == 0
    assert (commands.settings.sink, commands.settings.nats_stream) == (SinkKind.STDOUT, "ENV")


def test_the_file_in_the_working_directory_is_read(commands: Commands) -> None:
    Path(".env").write_text("BRIDGE_NATS_STREAM=FILE\n")
    assert main(["run"]) == 0
    assert commands.settings.nats_stream == "FILE"


@pytest.mark.parametrize("command", ["demo", "settings"])
def test_commands_without_settings_do_not_read_them(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("BRIDGE_SINK", "rabbit")
    assert main([command]) == 0
    assert commands.answer == 0


def test_the_demo_is_told_its_sink_by_the_flag_alone(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SINK", "kafka")
    Path(".env").write_text("BRIDGE_SINK=kafka\n")
    assert main(["demo"]) == 0
    assert commands.calls == [("demo", {"sink": SinkKind.JETSTREAM})]


# Flags and help


@pytest.mark.parametrize("command", [*WITH_SETTINGS, "verify", "settings"])
def test_the_help_has_every_setting_but_the_secrets_in_its_groups(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    flags = {word for line in text.splitlines() if line.startswith("  --") for word in line.split()[:1]}
    never = {flag(name) for name in SECRETS if not name.endswith("_url")}
    own = {
        "--json",
        "--limit",
        "--show-keys",
        "--show-values",
        "--all",
        "--watch",
        "--rate",
        "--ttl-min",
        "--ttl-max",
        "--patience",
    }
    assert flags - own - {"--publish", "--effective"} == {flag(name) for name in Settings.model_fields} - never
    assert ("--keys N " in text) is (command == "verify")
    for title in ("general:", "Redis:", "NATS:", "Kafka:", "HTTP and logs:"):
        assert title in text.splitlines()
    assert "Secrets are never flags" in text


@pytest.mark.parametrize("name", [name for name in SECRETS if not name.endswith("_url")])
@pytest.mark.parametrize("between", ["=", " "])
def test_a_secret_as_a_flag_is_refused_and_not_repeated(
    name: str, between: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *f"{flag(name)}{between}{S3CRET}".split()]) == 2
    captured = capsys.readouterr()
    assert f"{flag(name)}-file" in captured.err
    assert S3CRET not in captured.out + captured.err


def test_a_secrets_file_is_a_flag(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(S3CRET + "\n")
    assert main(["run", "--redis-password-file", str(tmp_path / "password")]) == 0
    assert commands.settings.secret("redis_password") == S3CRET


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["walk"],
        [S3CRET],
        ["--redis-password", S3CRET, "run"],
        ["run", "--redis-passwort", S3CRET],
        ["run", f"--redis-passwort={S3CRET}"],
        ["run", S3CRET],
        ["run", "-p", S3CRET],
        ["run", f"-p{S3CRET}"],
        ["run", "--sink"],
        ["run", "--sin", "kafka"],
        ["run", "--sink", "kafka", "--sink", "stdout"],
        ["run", "--json"],
        ["verify", "--keys", "share:*"],
        ["verify", "--keys", "0"],
        ["verify", "--keys", "1", "--keys", "2"],
        ["verify", "--rate", "-1"],
        ["verify", "--ttl-min", "1h"],
        ["verify", "--ttl-max", "-1s"],
        ["verify", "--patience", S3CRET],
        ["verify", S3CRET],
        ["run", "--patience", "1s"],
        ["dead"],
        ["dead", S3CRET],
        ["dead", "list", S3CRET],
        ["dead", "list", "--limit", "0"],
        ["dead", "list", "--limit", S3CRET],
        ["dead", "show"],
        ["dead", "show", "a", S3CRET],
        ["dead", "retry"],
        ["dead", "retry", "a", "--all"],
        ["dead", "retry", "--redis-password", S3CRET, "a"],
        ["dead", "drop"],
        ["dead", "drop", "--all"],
        ["demo", "--sink"],
        ["demo", "--sink", "stdout"],
        ["demo", "--sink", S3CRET],
        ["demo", "--sink", "kafka", "--sink", "jetstream"],
        ["demo", "--nats-url", S3CRET],
        ["settings", S3CRET],
    ],
)
def test_an_error_of_usage_is_status_2_and_repeats_no_possible_secret(
    commands: Commands, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "expiry-bridge" in captured.err
    assert S3CRET not in captured.err
    assert commands.calls == []


def test_an_unknown_flag_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--nats-urls", "x"]) == 2
    assert "unknown flag --nats-urls; the nearest known is --nats-url" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_password_in_the_process_list_is_warned_of_and_not_repeated(
    commands: Commands, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--redis-url", f"redis://:{S3CRET}@h/0"]) == 0
    told = capsys.readouterr().err
    assert "secret.exposed" in told
    assert "BRIDGE_REDIS_URL" in told
    assert S3CRET not in told


# Errors


@pytest.mark.parametrize("command", [*WITH_SETTINGS[1:], "verify"])
def test_each_problem_of_the_configuration_is_one_line_and_the_status_is_2(
    commands: Commands, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGE_HTTP_PORT", "x")
    monkeypatch.setenv("BRIDGE_SINKS", S3CRET)
    assert main([*command.split(), "--sink", "rabbit"]) == 2
    captured = capsys.readouterr()
    assert [line.partition(":")[0] for line in captured.err.splitlines()] == [
        "BRIDGE_SINKS",
        "BRIDGE_SINK",
        "BRIDGE_HTTP_PORT",
    ]
    assert S3CRET not in captured.err
    assert commands.calls == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Refused("Redis is a\nreplica"), 1, "expiry-bridge: Redis is a replica\n"),
        (NotConnected("no route"), 1, "expiry-bridge: no route\n"),
        (ConfigurationError(["BRIDGE_A: b", "BRIDGE_C: d"]), 2, "BRIDGE_A: b\nBRIDGE_C: d\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_of_a_command_is_told_in_lines_and_as_a_status(
    commands: Commands, error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.answer = error
    assert main(["run"]) == status
    assert capsys.readouterr().err == said


def test_an_unexpected_error_is_not_hidden(commands: Commands) -> None:
    commands.answer = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["run"])


@pytest.mark.parametrize(("argument", "statuses"), [("settings", {1}), ("--help", {0, 1})])
def test_a_broken_pipe_ends_it_quietly(argument: str, statuses: set[int]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "bridge", argument]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False, timeout=60)
    os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode in statuses  # argparse itself ignores a failing write, where output is not buffered


def test_the_package_is_runnable_and_needs_no_client_library_for_the_reference() -> None:
    script = (
        "import sys; from bridge.cli import main; status = main(['settings']);"
        "print(status, sorted({'redis', 'nats', 'aiokafka', 'aiohttp'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == reference() + "0 []\n"
