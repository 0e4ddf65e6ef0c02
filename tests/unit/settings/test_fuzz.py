"""The settings from any environment, `.env` and flags: they work, or each problem is one line that names its variable.

No line repeats a secret.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.settings import SECRETS, Settings, variable
from tests.support.loaded import S3CRET, attempted, loaded, written

pytestmark = pytest.mark.unmeasured

FIELDS = sorted(Settings.model_fields)
VARIABLES = [variable(name) for name in FIELDS]
ANY_TEXT = st.text(st.characters(), max_size=30)
"""With NUL, line ends, and the lone surrogates that Python makes of bytes that are no UTF-8."""
LIKELY = st.sampled_from(
    [
        *(
            "",
            " ",
            "0",
            "1",
            "-1",
            "1e999",
            "nan",
            "inf",
            "99999999999999999999",
            "true",
            "false",
            "maybe",
            "{db}",
            "*",
        ),
        *(
            "jetstream",
            "kafka",
            "stdout",
            "binary",
            "verify",
            "json",
            "lz4",
            "sasl",
            "plain",
            "/",
            "/dev/null",
            "/proc",
        ),
        *("redis://h:1/0", "rediss://h", "unix:///s?db=1", "redis://h:99999", "redis://[::1", "redis://h/x", "h:1,h:2"),
        *(
            "nats://a,tls://b",
            "ws://a",
            "http://a",
            "://",
            "redis+sentinel://h",
            "redis+sentinel://h:1,i/s/0",
            ",",
            "a,,b",
            "../.env",
            "\n",
            "\0",
        ),
    ]
)
SECRET_TEXTS = st.builds(
    lambda form, noise: form.format(S3CRET, noise),
    st.sampled_from(
        [
            "{0}",
            "{0}{1}",
            "redis://u:{0}@h:1/{1}",
            "redis+sentinel://u:{0}@h/{1}",
            "nats://u:{0}@{1}",
            "nats://{0}@h,{1}",
            "{1}://u:{0}@h",
        ]
    ),
    st.text(st.characters(exclude_characters="{}"), max_size=5),
)
VALUES = LIKELY | ANY_TEXT
ENVIRONMENTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)


def check(problems: list[str], *beginnings: str) -> None:
    """Each problem is one line, and says of which variable (or of which of these others) it is."""
    for problem in problems:
        assert problem.isprintable()
        assert problem.startswith(tuple(f"{name}:" for name in (*VARIABLES, *beginnings))), problem
        assert len(problem) < 1000


@given(ENVIRONMENTS)
def test_any_environment_is_settings_or_problems_that_name_their_variables(environ: dict[str, str]) -> None:
    settings, problems = attempted({variable(name): value for name, value in environ.items()})
    check(problems)
    assert (settings is None) == bool(problems)


@given(ENVIRONMENTS, st.dictionaries(st.sampled_from(SECRETS), SECRET_TEXTS, min_size=1, max_size=4))
def test_no_problem_repeats_a_secret(environ: dict[str, str], secrets: dict[str, str]) -> None:
    settings, problems = attempted({variable(name): value for name, value in (environ | secrets).items()})
    check(problems)
    assert S3CRET not in "".join(problems)
    assert S3CRET not in f"{settings!r} {settings}"


@given(ENVIRONMENTS, ENVIRONMENTS, ENVIRONMENTS)
def test_any_flags_over_any_file_are_settings_or_problems(
    tmp_path_factory: pytest.TempPathFactory, flags: dict[str, str], environ: dict[str, str], lines: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.env"
    text = "".join(f"{variable(name)}={value}\n" for name, value in lines.items())
    env_file = written(path, text.encode(errors="surrogatepass"))  # then it is no UTF-8
    problems: list[str] = []
    try:
        loaded(env_file, flags, **environ)
    except ConfigurationError as error:
        problems = error.problems
    assert all(problem.isprintable() for problem in problems)
    # A line end in a value makes names of what follows it: they are unknown, and are told so.
    check([problem for problem in problems if "unknown; the nearest" not in problem], str(env_file))


@given(st.dictionaries(ANY_TEXT.map(lambda text: f"BRIDGE_{text}"), VALUES, max_size=4))
def test_any_names_are_known_or_problems(environ: dict[str, str]) -> None:
    _, problems = attempted(environ)
    assert all(problem.isprintable() and problem.startswith("BRIDGE_") for problem in problems)
