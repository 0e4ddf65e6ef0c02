"""Where a secret may come from, and that it shows nowhere."""

import os
from pathlib import Path

import pytest

from bridge.errors import Refused
from bridge.settings import SECRETS, exposed, redact_url, variable
from tests.support.loaded import S3CRET, loaded, problems_of, written

COMPANIONS = {
    "redis_sentinel_password": {"redis_url": "redis+sentinel://h/service"},
    "nats_password": {"nats_user": "u"},
    "kafka_sasl_password": {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "u",
    },
    "kafka_sasl_oauth_client_secret": {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_sasl_oauth_token_url": "https://h/token",
        "kafka_sasl_oauth_client_id": "u",
    },
    "redis_tls_key_password": {
        "redis_url": "rediss://h",
        "redis_tls_cert_file": __file__,
        "redis_tls_key_file": __file__,
    },
    "nats_tls_key_password": {"nats_tls_cert_file": __file__, "nats_tls_key_file": __file__},
    "kafka_tls_key_password": {
        "kafka_security_protocol": "SSL",
        "kafka_tls_cert_file": __file__,
        "kafka_tls_key_file": __file__,
    },
}
"""What a secret needs beside itself."""


def scheme_of(name: str) -> str:
    """Of a URL: the server's."""
    return name.removesuffix("_url").rpartition("_")[2]


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_shows_in_a_representation_or_a_dump(name: str) -> None:
    value = f"{scheme_of(name)}://:{S3CRET}@h" if name.endswith("_url") else S3CRET
    settings = loaded(**{name: value}, **COMPANIONS.get(name, {}))
    assert settings.secret(name) == value
    assert S3CRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_directly_and_as_a_file_is_a_problem(tmp_path: Path, name: str) -> None:
    value = f"{scheme_of(name)}://h" if name.endswith("_url") else S3CRET
    path = written(tmp_path / "secret", value)
    problems = problems_of(**{name: value, f"{name}_file": str(path)})
    assert f"{variable(name)}: set together with {variable(name)}_FILE; set only one of them" in problems


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_file_may_end_in_a_newline(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / "secret", S3CRET + ending)
    assert loaded(redis_password_file=str(path)).secret("redis_password") == S3CRET


def test_nothing_but_one_newline_is_stripped_from_a_secret_file(tmp_path: Path) -> None:
    path = written(tmp_path / "secret", f" {S3CRET} \n")
    assert loaded(redis_password_file=str(path)).secret("redis_password") == f" {S3CRET} "


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (f"\ufeff{S3CRET}", "must be a file without a byte order mark, which would be a part of the secret"),
        (f"{S3CRET}\n\n", "must be a file of one line, which may end in one newline"),
        (f"{S3CRET}\r\n\r\n", "must be a file of one line, which may end in one newline"),
        (f"{S3CRET}\nother\n", "must be a file of one line, which may end in one newline"),
    ],
)
def test_what_an_editor_leaves_in_a_secret_file_is_named(tmp_path: Path, contents: str, said: str) -> None:
    path = written(tmp_path / "secret", contents)
    (problem,) = problems_of(redis_password_file=str(path))
    assert problem == f"BRIDGE_REDIS_PASSWORD_FILE: the value cannot be used; {said}"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"redis_url": f"redis://:{S3CRET}@h/0"}, ["BRIDGE_REDIS_URL"]),
        ({"redis_url": f"redis+sentinel://u:{S3CRET}@h,i/s"}, ["BRIDGE_REDIS_URL"]),
        ({"redis_url": "redis://user@h/0", "nats_url": "nats://h:4222"}, []),
        ({"nats_url": f"nats://h,nats://{S3CRET}@i"}, ["BRIDGE_NATS_URL"]),
        ({"redis_url": "redis://h/0", "namespace": "a:b@c"}, []),
    ],
)
def test_a_flag_that_shows_a_password_in_the_process_list_is_known(flags: dict[str, str], named: list[str]) -> None:
    assert exposed(flags) == named


def test_a_secret_file_is_read_again_whenever_the_secret_is_needed(tmp_path: Path) -> None:
    path = written(tmp_path / "url", "redis://:old@h/1\n")
    settings = loaded(redis_url_file=str(path))
    assert settings.effective_redis_url() == "redis://:old@h/1"
    written(path, "redis://:new@h/1\n")
    assert settings.effective_redis_url() == "redis://:new@h/1"


@pytest.mark.parametrize("contents", [None, b"", b"\n", b"\xff", f"http://{S3CRET}@h".encode()])
def test_a_secret_file_that_becomes_unusable_is_refused_by_its_variables_name(
    tmp_path: Path, contents: bytes | None
) -> None:
    path = written(tmp_path / "url", "nats://h\n")
    settings = loaded(nats_url_file=str(path))
    path.unlink()
    if contents is not None:
        written(path, contents)
    with pytest.raises(Refused, match=r"^BRIDGE_NATS_URL_FILE: must be ") as caught:
        settings.effective_nats_urls()
    assert S3CRET not in str(caught.value)


def test_a_pipe_is_no_secret_file_because_it_could_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (problem,) = problems_of(redis_password_file=str(tmp_path / "pipe"))
    assert "must be a regular file" in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        (f"redis://u:{S3CRET}@h:1/0", "redis://h:1/0"),
        (f"redis://:{S3CRET}@/{S3CRET}@h/0", "redis://h/0"),
        (f"unix://:{S3CRET}@/run/redis.sock?db=1&password={S3CRET}", "unix:///run/redis.sock"),
        (S3CRET, "(not a URL)"),
    ],
)
def test_a_redacted_url_has_neither_user_nor_password_nor_options(url: str, shown: str) -> None:
    assert redact_url(url) == shown
