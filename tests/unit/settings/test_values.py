"""What a single value may be, and that a wrong one is said in one line that names it and hides secrets."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings import Settings, SinkKind, variable
from tests.support.loaded import S3CRET, attempted, loaded, problems_of

# What is right


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("source", "urn:shop:redis%20a", "urn:shop:redis%20a"),
        ("keys", "share:*, session:[a-f]*", ["share:*", "session:[a-f]*"]),
        ("keys", "*, !tmp:*", ["*", "!tmp:*"]),
        ("sink", "kafka", SinkKind.KAFKA),
        ("scan_interval", "0", 0),
        ("scan_interval", "0.5", 0.5),
        ("nats_subject", "a-{db}.{key}.Ünï", "a-{db}.{key}.Ünï"),
        ("nats_provision", "false", False),
        ("kafka_topic", "{prefix}-expired_{db}", "{prefix}-expired_{db}"),
        ("kafka_bootstrap_servers", "a:1,[::1]:9092, c.example:65535", ["a:1", "[::1]:9092", "c.example:65535"]),
        ("http_port", "0", 0),
    ],
)
def test_a_right_value_is_taken(name: str, value: str, expected: object) -> None:
    assert getattr(loaded(**{name: value}), name) == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://h:1/15",
        "redis://:p%40ss@h:1/2",
        "rediss://u:p@[::1]:6380/0",
        "redis://h?db=3",
        "unix:///run/redis.sock",
        "unix://u:p@/run/redis.sock?db=3",
    ],
)
def test_a_redis_url_that_works_is_taken_as_it_is(url: str) -> None:
    assert loaded(redis_url=url).effective_redis_url() == url


def test_nats_urls_are_separated_by_commas_and_stripped() -> None:
    urls = loaded(nats_url="nats://a:4222, tls://u:p@b:4223").effective_nats_urls()
    assert urls == ["nats://a:4222", "tls://u:p@b:4223"]


# What is wrong

WRONG = {
    "source": "not a uri",
    "keys": "a,,b",
    "fields": "!a",
    "sink": "rabbit",
    "content_mode": "xml",
    "namespace": "a{b}",
    "scan_interval": "-1",
    "shards": "0",
    "outbox_limit": "0",
    "values": "a,,b",
    "values_lead": "0",
    "values_max_bytes": "0",
    "values_outbox_bytes": "0",
    "shutdown_timeout": "0",
    "stuck_seconds": "-1",
    "redis_url": f"http://:{S3CRET}@h/0",
    "redis_url_file": f"/nowhere/{S3CRET}",
    "redis_username": "bytes \udcff",
    "redis_password": f"{S3CRET}\udcff",
    "redis_password_file": S3CRET,
    "redis_credentials_provider": "no-module",
    "redis_tls_ca_file": "/nowhere",
    "redis_tls_cert_file": "/nowhere",
    "redis_tls_key_file": f"-----BEGIN PRIVATE KEY----- {S3CRET}",
    "redis_notifications": "off",
    "redis_backlog": "all",
    "redis_sentinel_username": "without-a-sentinel",
    "redis_sentinel_password": S3CRET,
    "redis_sentinel_password_file": S3CRET,
    "redis_sentinel_tls": "perhaps",
    "sink_redis_url": f"http://:{S3CRET}@h/0",
    "sink_redis_url_file": f"/nowhere/{S3CRET}",
    "sink_redis_credentials_provider": "no-module",
    "sink_redis_stream": "{key}",
    "sink_redis_maxlen": "0",
    "nats_url": f"nats://a:{S3CRET}@h:x",
    "nats_url_file": "/",
    "nats_stream": "a.b",
    "nats_subject": "expired.{table}",
    "nats_deduplication": "always",
    "nats_provision": "perhaps",
    "nats_replicas": "0",
    "nats_max_bytes": "0",
    "nats_domain": "a.b",
    "nats_api_prefix": "$JS.API.",
    "nats_retention_hours": "0",
    "nats_user": "without-password",
    "nats_password": S3CRET,
    "nats_password_file": S3CRET,
    "nats_token": f"{S3CRET}\0",
    "nats_token_file": S3CRET,
    "nats_creds_file": S3CRET,
    "nats_nkey_seed": f"{S3CRET}\udcff",
    "nats_nkey_seed_file": S3CRET,
    "nats_tls_ca_file": "/nowhere",
    "nats_tls_cert_file": "/nowhere",
    "nats_tls_key_file": "/nowhere",
    "kafka_bootstrap_servers": f"user:{S3CRET}@h:9092",
    "kafka_topic": "{key}",
    "kafka_deduplication": "transactions",
    "kafka_provision": "2",
    "kafka_partitions": "0",
    "kafka_replication": "-2",
    "kafka_retention_hours": "1.5",
    "kafka_compression": "brotli",
    "kafka_security_protocol": "TLS",
    "kafka_sasl_mechanism": "GSSAPI",
    "kafka_sasl_username": "without-sasl",
    "kafka_sasl_password": S3CRET,
    "kafka_sasl_password_file": S3CRET,
    "kafka_sasl_oauth_token_file": S3CRET,
    "kafka_sasl_oauth_token_url": f"https://u:{S3CRET}@h/token",
    "kafka_sasl_oauth_client_id": "without-sasl",
    "kafka_sasl_oauth_client_secret": S3CRET,
    "kafka_sasl_oauth_client_secret_file": S3CRET,
    "kafka_sasl_oauth_scope": "without-sasl",
    "kafka_sasl_oauth_extensions": "no-pair",
    "kafka_sasl_oauth_provider": "no-module",
    "kafka_tls_ca_file": "/nowhere",
    "kafka_tls_cert_file": "/nowhere",
    "kafka_tls_key_file": "/nowhere",
    **{f"{server}_tls_key_password": S3CRET for server in ("redis", "nats", "kafka")},
    **{f"{server}_tls_key_password_file": S3CRET for server in ("redis", "nats", "kafka")},
    "http_host": "a b",
    "http_port": "65536",
    "log_level": "loud",
    "log_format": "xml",
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_wrong_value_is_told_in_lines_that_name_the_variable_and_hold_no_secret(name: str) -> None:
    problems = problems_of(**{name: WRONG[name]})
    assert all(problem.startswith(f"{variable(name)}: ") for problem in problems)
    assert all("; " in problem for problem in problems), "what is wrong; what is allowed"
    assert S3CRET not in "".join(problems)
    assert not any(character in problem for problem in problems for character in "\n\r\udcff")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sink", "rabbit", "BRIDGE_SINK: 'rabbit' cannot be used; must be 'jetstream', 'kafka', 'redis' or 'stdout'"),
        ("http_port", "http", "BRIDGE_HTTP_PORT: 'http' cannot be used; must be a whole number"),
        ("scan_interval", "soon", "BRIDGE_SCAN_INTERVAL: 'soon' cannot be used; must be a number"),
        ("nats_provision", "ja", "BRIDGE_NATS_PROVISION: 'ja' cannot be used; must be true or false"),
    ],
)
def test_a_problem_shows_the_value_and_what_is_allowed(name: str, value: str, said: str) -> None:
    assert problems_of(**{name: value}) == [said]


@pytest.mark.parametrize("name", ["keys", "redis_url", "nats_stream", "sink", "http_port", "nats_creds_file"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_a_value_are_named(name: str, quote: str) -> None:
    (problem,) = problems_of(**{name: f"{quote}a{quote}"})
    assert problem.startswith(f"{variable(name)}: ")
    assert problem.endswith("must be without the quotes around it")


def test_a_password_may_begin_and_end_with_a_quote() -> None:
    assert loaded(redis_password="'a'").secret("redis_password") == "'a'"


def test_a_scheme_that_is_unknown_is_answered_with_all_that_are_known() -> None:
    (problem,) = problems_of(redis_url="http://h")
    for scheme in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"):
        assert scheme in re.split("[(), ]+", problem)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.1", "1 2"])
@pytest.mark.parametrize("name", ["scan_interval", "shutdown_timeout"])
def test_seconds_are_finite_and_not_negative(name: str, value: str) -> None:
    assert variable(name) in problems_of(**{name: value})[0]


@pytest.mark.parametrize(
    "subject",
    [
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\tb",
        "a.*",
        "a.>",
        "{}",
        "{{db}}",
        "{db",
        "db}",
        "{Key}",
        "$JS.a",
        "a\x7f",
        "{id}",
        "a.{id}.b",
        "a.x{id}",
    ],
)
def test_a_subject_template_that_nats_would_not_take_is_refused(subject: str) -> None:
    assert "BRIDGE_NATS_SUBJECT" in problems_of(nats_subject=subject)[0]


def test_an_id_in_the_subject_needs_the_deduplication_by_subject() -> None:
    assert "needs BRIDGE_NATS_DEDUPLICATION=subject" in problems_of(nats_subject="expired.{prefix}.{id}")[0]
    settings = loaded(nats_subject="expired.{prefix}.{id}", nats_deduplication="subject")
    assert settings.nats_subject == "expired.{prefix}.{id}"


@pytest.mark.parametrize("topic", [".", "..", "a b", "a/b", "ü", "{key}", "a" * 250, "{db"])
def test_a_topic_that_kafka_would_not_take_is_refused(topic: str) -> None:
    assert "BRIDGE_KAFKA_TOPIC" in problems_of(kafka_topic=topic)[0]


@pytest.mark.parametrize(
    "url",
    [
        S3CRET,
        f"redis://:{S3CRET}",
        f"redis://:{S3CRET}@",
        f"redis://:{S3CRET}@h:x/0",
        f"redis://:{S3CRET}@h:99999/0",
        f"redis://:{S3CRET}@h/zero",
        f"redis://:{S3CRET}@h/-1",
        f"redis://:{S3CRET}@h/1/2",
        f"redis://:{S3CRET}/#x@h/0",
        f"redis://h/0#{S3CRET}",
        f"redis://h/0?password={S3CRET}",
        f"redis://:{S3CRET}@[::1/0",
        f"redis://:{S3CRET}\u2100@h/0",
        f"redis://:{S3CRET} @h/0",
        f"redis://:{S3CRET}\n@h/0",
        f"unix://run/{S3CRET}.sock",
        f"unix:///run/redis.sock?db={S3CRET}",
        "unix://",
        "http://h",
        "redis://h/0,redis://i/0x",
    ],
)
def test_a_redis_url_that_cannot_work_is_refused_without_showing_it(url: str) -> None:
    (problem,) = problems_of(redis_url=url)
    assert problem.startswith("BRIDGE_REDIS_URL: the value cannot be used; ")
    assert S3CRET not in problem


@pytest.mark.parametrize(
    ("url", "requirement"),
    [
        (f"redis+cluster://:{S3CRET}@/", "must name nodes of the cluster"),
        (f"redis+cluster://:{S3CRET}@h1:1,,h2:2", "must name nodes of the cluster"),
        (f"redis+cluster://:{S3CRET}@h1:0", "must name nodes of the cluster"),
        (f"redis+cluster://:{S3CRET}@h1:1/1", "has no place for a db"),
        (f"redis+cluster://:{S3CRET}@h1:1/0/0", "has no place for a db"),
        (f"redis+cluster://h1:1?password={S3CRET}", "must be a URL such as redis+cluster://"),
    ],
)
def test_a_cluster_url_that_cannot_work_is_refused_with_what_it_lacks(url: str, requirement: str) -> None:
    (problem,) = problems_of(redis_url=url)
    assert requirement in problem
    assert S3CRET not in problem


def test_a_cluster_url_says_which_nodes_to_ask_and_the_login() -> None:
    address = loaded(redis_url="rediss+cluster://u%40:p%2F@h1,[::1]:2,h1:6379/0").redis_address()
    assert address.nodes == (("h1", 6379), ("::1", 2))
    assert (address.db, address.tls, address.sentinels) == (0, True, ())
    assert (address.username, address.password) == ("u@", "p/")
    assert not loaded(redis_url="redis+cluster://h1:1").redis_address().tls


def test_a_cluster_has_a_shard_for_each_primary_and_no_other_number_of_them() -> None:
    (problem,) = problems_of(redis_url="redis+cluster://h1:1", shards="2")
    assert problem.startswith("BRIDGE_SHARDS: must be 1 with a cluster")


@pytest.mark.parametrize(
    ("url", "requirement"),
    [
        (f"redis+sentinel://:{S3CRET}@h1:1,h2:2", "must name the service"),
        (f"redis+sentinel://:{S3CRET}@h1:1/", "must name the service"),
        (f"redis+sentinel://:{S3CRET}@h1:1/a%20b/0", "must name the service"),
        (f"redis+sentinel://:{S3CRET}@h1:1/service/zero", "the db behind the service must be a number"),
        (f"redis+sentinel://:{S3CRET}@h1:1/service/0/0", "must be a URL such as redis+sentinel://"),
        (f"redis+sentinel://:{S3CRET}@/service", "must name the sentinels"),
        (f"redis+sentinel://:{S3CRET}@h1:1,,h2:2/service", "must name the sentinels"),
        (f"redis+sentinel://:{S3CRET}@h1:0/service", "must name the sentinels"),
        (f"redis+sentinel://:{S3CRET}@h1:70000/service", "must name the sentinels"),
        (f"redis+sentinel://h1:1/service/0?password={S3CRET}", "must be a URL such as redis+sentinel://"),
        (f"redis+sentinel://u:{S3CRET} @h1:1/service/0", "must be a URL such as redis+sentinel://"),
    ],
)
def test_a_sentinel_url_that_cannot_work_is_refused_with_what_it_lacks(url: str, requirement: str) -> None:
    (problem,) = problems_of(redis_url=url)
    assert requirement in problem
    assert S3CRET not in problem


def test_a_sentinel_url_says_who_to_ask_for_what_and_the_login_at_redis() -> None:
    address = loaded(redis_url="rediss+sentinel://u%40:p%2F@h1,[::1]:2,h1:26379/my-master.1/3").redis_address()
    assert address.sentinels == (("h1", 26379), ("::1", 2))
    assert (address.service, address.db, address.tls) == ("my-master.1", 3, True)
    assert (address.username, address.password) == ("u@", "p/")
    short = loaded(redis_url="redis+sentinel://h1:1/service").redis_address()
    assert (short.service, short.db, short.tls, short.username, short.password) == ("service", 0, False, None, None)


@pytest.mark.parametrize("urls", ["nats://a,", "nats://a,redis://b", "nats://a,ws://b", "a:4222", "nats://a:0"])
def test_nats_urls_that_cannot_work_are_refused(urls: str) -> None:
    assert problems_of(nats_url=urls)[0].startswith("BRIDGE_NATS_URL: ")


# Nothing else than a ConfigurationError, whatever the values


@pytest.mark.unmeasured
@given(st.sampled_from(list(Settings.model_fields)), st.text(st.characters(), max_size=60))
def test_no_text_whatever_ends_in_a_traceback(name: str, text: str) -> None:
    settings, problems = attempted({variable(name): text})
    assert all(problem.isprintable() for problem in problems)
    if settings is None:
        assert problems
    else:
        assert settings.effective_redis_url()
        assert settings.effective_nats_urls()


@pytest.mark.unmeasured
@given(
    st.sampled_from(["redis", "rediss", "unix", "nats", "tls", "redis+cluster", "http"]),
    st.text(st.characters(), max_size=20),
    st.sampled_from(["@h:1/0", "@/run/s?db=1", "", "@", "@h:x", "@[::1/", "@h/0#", "@h/x,nats://i"]),
    st.sampled_from(["redis_url", "nats_url", "kafka_bootstrap_servers", "redis_password_file"]),
)
def test_no_password_in_a_url_is_ever_shown(scheme: str, around: str, rest: str, name: str) -> None:
    settings, problems = attempted({variable(name): f"{scheme}://u:{around}{S3CRET}{around}{rest}"})
    assert S3CRET not in f"{settings!r} {problems}"
