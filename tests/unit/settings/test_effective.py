"""What `expiry-bridge settings --effective` prints: each value, where it comes from, and no secret."""

import json
from pathlib import Path

import pytest

from bridge.cli.main import main
from bridge.settings import SECRETS, Settings, places, variable
from tests.support.loaded import S3CRET, loaded, written

pytestmark = pytest.mark.usefixtures("_own_directory")
WITH_CREDENTIALS = {
    "redis_url": f"redis://user:{S3CRET}@10.0.0.1:6379/3",
    "sink_redis_url": f"redis://user:{S3CRET}@10.0.0.1:6379/3",
    "nats_url": f"nats://user:{S3CRET}@a:4222, nats://{S3CRET}@b:4222?x={S3CRET}",
}


@pytest.fixture
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, tuple[str | None, str]]:
    """Variable → value and origin, as the command prints them."""
    assert main(["settings", "--effective", "--json", *flags]) == 0
    return {name: (each["value"], each["origin"]) for name, each in json.loads(capsys.readouterr().out).items()}


def test_each_value_is_shown_with_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(Path(".env"), "BRIDGE_NATS_STREAM=FILE\nBRIDGE_KAFKA_TOPIC=file\nBRIDGE_NAMESPACE=file\nBRIDGE_SHARDS=\n")
    monkeypatch.setenv("BRIDGE_NATS_STREAM", "ENV")
    monkeypatch.setenv("BRIDGE_KAFKA_TOPIC", "")
    monkeypatch.setenv("BRIDGE_KEYS", "a:*,b:*")
    monkeypatch.setenv("BRIDGE_NATS_PROVISION", "0")
    monkeypatch.setenv("BRIDGE_SINK", "stdout")
    found = printed(capsys, "--sink", "kafka", "--scan-interval", "5", "--content-mode=")
    assert found["BRIDGE_NATS_STREAM"] == ("ENV", "environment")
    assert found["BRIDGE_KEYS"] == ("a:*,b:*", "environment")
    assert found["BRIDGE_NATS_PROVISION"] == ("false", "environment")
    assert found["BRIDGE_KAFKA_TOPIC"] == ("file", ".env")
    assert found["BRIDGE_NAMESPACE"] == ("file", ".env")
    assert found["BRIDGE_SINK"] == ("kafka", "flag")
    assert found["BRIDGE_SCAN_INTERVAL"] == ("5", "flag")
    assert found["BRIDGE_CONTENT_MODE"] == ("structured", "default")
    assert found["BRIDGE_SHARDS"] == ("1", "default")
    assert found["BRIDGE_NATS_USER"] == (None, "default")
    missing = {variable(name) for name in Settings.model_fields} - found.keys()
    assert missing == {f"{variable(name)}_FILE" for name in SECRETS}


@pytest.mark.unmeasured
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_is_printed_whichever_way_it_is_given(
    form: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not all of them go together: each in turn, by the environment and by a file, with what it needs.
    needed = {"redis_url": "rediss+sentinel://h/s/0", "kafka_security_protocol": "SASL_SSL", "nats_user": "u"}
    for name in SECRETS:
        for file in (False, True):
            with monkeypatch.context() as patch:
                _give(patch, name, file=file, needed=needed)
                assert main(["settings", "--effective", *form]) == 0, (name, file)
            told = capsys.readouterr()
            assert S3CRET not in told.out + told.err, (name, file)
            assert "********" in told.out


def _give(patch: pytest.MonkeyPatch, name: str, *, file: bool, needed: dict[str, str]) -> None:
    if "_oauth_" in name:
        sasl = {"mechanism": "OAUTHBEARER", "oauth_token_url": "https://h/token", "oauth_client_id": "other"}
    else:
        sasl = {"mechanism": "PLAIN", "username": "other", "password": "other"}
    for other, value in (needed | {f"kafka_sasl_{part}": value for part, value in sasl.items()}).items():
        if other != name and (other != "nats_user" or name == "nats_password"):
            patch.setenv(variable(other), value)
    if name.endswith("_key_password"):
        server = name.partition("_")[0]
        for part in ("cert", "key"):
            patch.setenv(variable(f"{server}_tls_{part}_file"), str(written(Path(part), "PEM")))
    value = WITH_CREDENTIALS.get(name, S3CRET)
    if file:
        patch.delenv(variable(name), raising=False)
        patch.setenv(f"{variable(name)}_FILE", str(written(Path("secret"), f"{value}\n")))
    else:
        patch.setenv(variable(name), value)


def test_a_secret_from_a_file_says_so_and_the_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(Path("password"), S3CRET)
    written(Path(".env"), "BRIDGE_REDIS_PASSWORD_FILE=password\n")
    monkeypatch.setenv("BRIDGE_NATS_URL", WITH_CREDENTIALS["nats_url"])
    found = printed(capsys)
    assert found["BRIDGE_REDIS_PASSWORD"] == ("********", "file")
    assert found["BRIDGE_REDIS_PASSWORD_FILE"] == ("password", ".env")
    assert found["BRIDGE_NATS_URL"] == ("nats://********@a:4222,nats://********@b:4222", "environment")
    assert found["BRIDGE_REDIS_URL"] == ("redis://127.0.0.1:6379/0", "default")


def test_for_people_it_is_a_line_each_that_no_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGE_NAMESPACE", "a\x1b[31mb\nc")
    assert main(["settings", "--effective"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["BRIDGE_NAMESPACE", "environment", r"a\x1b[31mb\nc"] in lines
    assert ["BRIDGE_NATS_USER", "default", "unset"] in lines
    assert {line[0] for line in lines} <= {variable(name) for name in Settings.model_fields}


def test_what_cannot_be_loaded_is_refused_as_by_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGE_SINKS", S3CRET)
    assert main(["settings", "--effective"]) == 2
    assert capsys.readouterr().err.startswith("BRIDGE_SINKS: unknown; ")


@pytest.mark.parametrize("flags", [["--sink", "kafka"], ["--json"]])
def test_without_effective_it_takes_no_flag(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", *flags]) == 2
    assert "--effective" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "broker", "to"),
    [
        ({}, ["nats://a:4222", "nats://b:4222"], "EXPIRY"),
        ({"sink": "kafka"}, ["127.0.0.1:9092"], "redis.expired"),
        ({"sink": "redis"}, ["redis://10.0.0.1:6379/3"], "expired"),
        ({"sink": "redis", "sink_redis_url": f"redis://:{S3CRET}@other/1"}, ["redis://other/1"], "expired"),
        ({"sink": "stdout"}, [], ""),
    ],
)
def test_the_places_that_are_logged_hold_no_login(given: dict[str, str], broker: list[str], to: str) -> None:
    shared = {name: WITH_CREDENTIALS[name] for name in ("redis_url", "nats_url")}
    found = places(loaded(**shared, **given))
    assert found == ("redis://10.0.0.1:6379/3", broker, to, "127.0.0.1:8080")
    assert places(loaded(http_port="0")).http is None
