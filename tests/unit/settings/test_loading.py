"""Where a value comes from and in which precedence, and what is no name or no file of settings."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings import SinkKind, load
from tests.support.loaded import S3CRET, attempted, loaded, problems_of, written

# Where a value comes from


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    env_file = written(tmp_path / ".env", "BRIDGE_NATS_STREAM=FILE\nBRIDGE_KAFKA_TOPIC=file\nBRIDGE_NAMESPACE=file\n")
    settings = loaded(env_file, {"nats_stream": "FLAG"}, nats_stream="ENV", kafka_topic="env")
    assert (settings.nats_stream, settings.kafka_topic, settings.namespace) == ("FLAG", "env", "file")


def test_an_empty_value_does_not_hide_one_of_lower_rank(tmp_path: Path) -> None:
    env_file = written(tmp_path / ".env", "BRIDGE_NATS_STREAM=FILE\n")
    assert loaded(env_file, {"nats_stream": ""}, nats_stream="").nats_stream == "FILE"


def test_the_process_environment_and_the_file_in_the_working_directory_are_read_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_SINK", "stdout")
    monkeypatch.chdir(written(tmp_path / ".env", "BRIDGE_NAMESPACE=file\n").parent)
    assert (load({}).sink, load({}).namespace) == (SinkKind.STDOUT, "file")


def test_the_file_may_be_missing(tmp_path: Path) -> None:
    assert loaded(tmp_path / ".env") == loaded()


def test_values_in_the_file_may_be_quoted_and_commented(tmp_path: Path) -> None:
    env_file = written(
        tmp_path / ".env",
        "\ufeff# a comment\nexport BRIDGE_REDIS_PASSWORD='pa$$HOME #x'\nBRIDGE_NATS_STREAM=A # b\nOTHER=1\nOTHER=2\n",
    )
    settings = loaded(env_file)
    assert settings.secret("redis_password") == "pa$$HOME #x"
    assert settings.nats_stream == "A"


def test_braces_in_the_file_stand_for_another_variable_which_may_have_a_default(tmp_path: Path) -> None:
    lines = ["PLACE=here", "BRIDGE_NATS_STREAM=${PLACE}-${BRIDGE_NAMESPACE}", "BRIDGE_KAFKA_TOPIC='${NONE:-there}'"]
    settings = loaded(written(tmp_path / ".env", "\n".join(lines)), namespace="env")
    assert (settings.nats_stream, settings.kafka_topic) == ("here-env", "there")


def test_lines_of_others_in_the_file_are_left_alone(tmp_path: Path) -> None:
    env_file = written(tmp_path / ".env", "SINK=kafka\nsink=kafka\nbridge_mode=x\nNO 'SENSE\nBRIDGE_NAMESPACE=file\n")
    settings = loaded(env_file)
    assert (settings.sink, settings.namespace) == (SinkKind.JETSTREAM, "file")


def test_a_name_without_a_value_in_the_file_is_unset(tmp_path: Path) -> None:
    assert loaded(written(tmp_path / ".env", "BRIDGE_SINK\nBRIDGE_NAMESPACE=\n")) == loaded()


def test_a_nul_in_the_file_is_a_problem_of_its_variable(tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path / ".env", f"BRIDGE_REDIS_PASSWORD={S3CRET}\0\n"))
    assert problem == "BRIDGE_REDIS_PASSWORD: the value cannot be used; must be UTF-8 without NUL"


def test_of_a_variable_twice_in_the_file_the_last_counts(tmp_path: Path) -> None:
    assert loaded(written(tmp_path / ".env", "BRIDGE_SINK=kafka\n\nBRIDGE_SINK=stdout\n")).sink is SinkKind.STDOUT


@pytest.mark.parametrize("contents", [b"BRIDGE_NAMESPACE=\xff\n", f'BRIDGE_REDIS_PASSWORD="{S3CRET}\n'.encode()])
def test_a_file_that_cannot_be_understood_is_a_problem_that_names_it(tmp_path: Path, contents: bytes) -> None:
    (problem,) = problems_of(written(tmp_path / ".env", contents))
    assert problem.startswith(f"{tmp_path / '.env'}: ")
    assert S3CRET not in problem


def test_a_line_that_cannot_be_understood_is_named_by_its_number(tmp_path: Path) -> None:
    env_file = written(tmp_path / ".env", "OTHER=1\n\n# ours\n\nBRIDGE_SINK='kafka\nBRIDGE_NAMESPACE=n\n")
    assert problems_of(env_file) == [f"{env_file}: line 5 cannot be understood; must be NAME=value"]


def test_a_directory_in_the_files_place_is_a_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == [f"{tmp_path}: must be a regular file"]


@given(st.binary(max_size=200), st.sampled_from([b"", b"BRIDGE_SINK=", b"BRIDGE_REDIS_PASSWORD='", b"bridge_x"]))
def test_no_file_whatever_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, contents: bytes, start: bytes
) -> None:
    env_file = written(tmp_path_factory.getbasetemp() / "fuzzed.env", start + contents)
    _, problems = attempted({}, env_file)
    assert all(problem.isprintable() for problem in problems)


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("BRIDGE_REDIS_UR", "BRIDGE_REDIS_URL"),
        ("BRIDGE_KAFKA_TOPICS", "BRIDGE_KAFKA_TOPIC"),
        ("BRIDGE_redis_url", "BRIDGE_REDIS_URL"),
        ("bridge_redis_url", "BRIDGE_REDIS_URL"),
        ("BRIDGE_", "BRIDGE_"),
        ("BRIDGE_\udcff\n", "BRIDGE_"),
    ],
)
def test_an_unknown_variable_is_a_problem_that_names_the_nearest_known(name: str, nearest: str) -> None:
    _, (problem,) = attempted({name: f"redis://:{S3CRET}@h"})
    assert f"unknown; the nearest known is {nearest}" in problem
    assert problem.isprintable()
    assert S3CRET not in problem


def test_variables_of_others_are_left_alone() -> None:
    others = {"PATH": "/bin", "bridge_mode": "x", "MY_BRIDGE_SINK": "x", "SINK": "kafka", "sink": "kafka"}
    assert attempted(others) == (loaded(), [])


def test_a_service_link_of_kubernetes_is_told_how_to_remedy() -> None:
    (problem,) = problems_of(redis_service_host="10.0.0.1")
    assert "enableServiceLinks: false" in problem


def test_an_unknown_variable_in_the_file_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path / ".env", "BRIDGE_SINKS=kafka\n"))
    assert problem == "BRIDGE_SINKS: unknown; the nearest known is BRIDGE_SINK"


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of(sink="x", http_port="x", redis_url="x", unheard_of="x")
    assert [problem.partition(":")[0] for problem in problems] == [
        "BRIDGE_UNHEARD_OF",
        "BRIDGE_SINK",
        "BRIDGE_REDIS_URL",
        "BRIDGE_HTTP_PORT",
    ]
