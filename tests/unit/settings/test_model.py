"""What can be set, what it is by default, what contradicts itself, and how it is told to the user."""

from pathlib import Path

import pytest

from bridge.settings import SECRETS, Settings, SinkKind, reference, variable
from tests.support.loaded import S3CRET, loaded, problems_of, written

# Each by itself


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = loaded()
    assert settings.source == "/redis"
    assert settings.keys == ["*"]
    assert settings.sink is SinkKind.JETSTREAM
    assert settings.content_mode == "structured"
    assert settings.effective_redis_url() == "redis://127.0.0.1:6379/0"
    assert settings.redis_notifications == "configure"
    assert settings.namespace == "expiry-bridge"
    assert settings.scan_interval == 900
    assert settings.outbox_limit == 1_000_000
    assert settings.effective_nats_urls() == ["nats://127.0.0.1:4222"]
    assert (settings.nats_stream, settings.nats_subject) == ("EXPIRY", "expired.{db}.{prefix}")
    assert settings.kafka_bootstrap_servers == ["127.0.0.1:9092"]
    assert settings.kafka_topic == "redis.expired"
    assert settings.nats_provision
    assert settings.kafka_provision
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    assert (settings.log_level, settings.log_format) == ("info", None)
    assert settings.shutdown_timeout == 10


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_variable_may_be_empty_and_is_then_unset(name: str) -> None:
    assert loaded(**{name: ""}) == loaded()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded().sink = SinkKind.STDOUT  # type: ignore[misc]


def test_settings_built_by_hand_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SINK", "kafka")
    assert Settings().sink is SinkKind.JETSTREAM


# What contradicts itself

OAUTH = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"redis_url": f"redis://:{S3CRET}@h", "redis_password": S3CRET}, "BRIDGE_REDIS_PASSWORD"),
        ({"redis_url": "redis://u:p@h", "redis_username": "v"}, "BRIDGE_REDIS_USERNAME"),
        ({"redis_credentials_provider": "m:a", "redis_password": S3CRET}, "BRIDGE_REDIS_PASSWORD: has no effect"),
        ({"sink_redis_credentials_provider": "m:a"}, "needs BRIDGE_SINK_REDIS_URL"),
        (
            {"sink_redis_credentials_provider": "m:a", "sink_redis_url": f"redis://:{S3CRET}@h"},
            "BRIDGE_SINK_REDIS_URL: must hold no user and no password",
        ),
        ({"redis_credentials_provider": "m:a", "redis_username": "u"}, "BRIDGE_REDIS_USERNAME: has no effect"),
        ({"redis_credentials_provider": "m:a", "redis_url": f"redis://:{S3CRET}@h"}, "BRIDGE_REDIS_URL: must hold no"),
        ({"redis_tls_ca_file": __file__}, "BRIDGE_REDIS_TLS_CA_FILE"),
        ({"redis_url": "rediss://h", "redis_tls_cert_file": __file__}, "BRIDGE_REDIS_TLS_KEY_FILE"),
        ({"redis_sentinel_password": S3CRET}, "BRIDGE_REDIS_URL must begin with redis+sentinel://"),
        (
            {"redis_url": "redis+sentinel://h/s", "redis_sentinel_username": "u"},
            "BRIDGE_REDIS_SENTINEL_PASSWORD",
        ),
        ({"redis_url": "redis+sentinel://h/s", "redis_tls_ca_file": __file__}, "BRIDGE_REDIS_TLS_CA_FILE"),
        ({"redis_url": f"redis+sentinel://:{S3CRET}@h/s", "redis_password": S3CRET}, "BRIDGE_REDIS_PASSWORD"),
        ({"nats_tls_cert_file": __file__}, "BRIDGE_NATS_TLS_KEY_FILE"),
        ({"nats_tls_key_file": __file__}, "BRIDGE_NATS_TLS_CERT_FILE"),
        ({"nats_user": "u"}, "BRIDGE_NATS_PASSWORD"),
        ({"nats_password": S3CRET}, "BRIDGE_NATS_USER"),
        ({"nats_user": "u", "nats_password": S3CRET, "nats_token": S3CRET}, "BRIDGE_NATS_TOKEN"),
        ({"nats_token": S3CRET, "nats_creds_file": __file__}, "BRIDGE_NATS_CREDS_FILE"),
        ({"nats_nkey_seed": S3CRET, "nats_token_file": "secret"}, "BRIDGE_NATS_NKEY_SEED"),
        ({"nats_url": f"nats://h,nats://{S3CRET}@i", "nats_token": S3CRET}, "BRIDGE_NATS_URL"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "BRIDGE_KAFKA_SECURITY_PROTOCOL"),
        ({"kafka_sasl_password": S3CRET}, "BRIDGE_KAFKA_SASL_PASSWORD"),
        ({"kafka_security_protocol": "SASL_SSL"}, "BRIDGE_KAFKA_SASL_MECHANISM"),
        (
            {
                "kafka_security_protocol": "SASL_SSL",
                "kafka_sasl_mechanism": "PLAIN",
                "kafka_sasl_password": S3CRET,
            },
            "BRIDGE_KAFKA_SASL_USERNAME",
        ),
        (
            OAUTH,
            "OAUTHBEARER needs exactly one of BRIDGE_KAFKA_SASL_OAUTH_TOKEN_FILE, BRIDGE_KAFKA_SASL_OAUTH_TOKEN_URL",
        ),
        (OAUTH | {"kafka_sasl_oauth_provider": "m:a", "kafka_sasl_oauth_token_url": "https://h"}, "exactly one of"),
        (OAUTH | {"kafka_sasl_oauth_token_url": "https://h"}, "BRIDGE_KAFKA_SASL_OAUTH_CLIENT_SECRET: is unset"),
        (OAUTH | {"kafka_sasl_oauth_provider": "m:a", "kafka_sasl_oauth_client_id": "u"}, "CLIENT_ID: has no effect"),
        (
            OAUTH | {"kafka_sasl_oauth_provider": "m:a", "kafka_sasl_oauth_extensions": "a=b"},
            "EXTENSIONS: has no effect",
        ),
        (OAUTH | {"kafka_sasl_oauth_provider": "m:a", "kafka_sasl_password": S3CRET}, "PASSWORD: has no effect"),
        (
            OAUTH | {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_oauth_client_secret": S3CRET},
            "BRIDGE_KAFKA_SASL_OAUTH_CLIENT_SECRET: has no effect; BRIDGE_KAFKA_SASL_MECHANISM must be OAUTHBEARER",
        ),
        ({"kafka_tls_ca_file": __file__}, "BRIDGE_KAFKA_TLS_CA_FILE"),
        ({"kafka_security_protocol": "SSL", "kafka_tls_key_password": S3CRET}, "BRIDGE_KAFKA_TLS_KEY_FILE"),
        ({"redis_url": "rediss://h", "redis_tls_key_password": S3CRET}, "BRIDGE_REDIS_TLS_KEY_FILE"),
        ({"nats_tls_key_password": S3CRET}, "BRIDGE_NATS_TLS_KEY_FILE"),
    ],
)
def test_a_contradiction_is_a_problem_that_names_the_variables(environ: dict[str, str], named: str) -> None:
    written(Path("secret"), S3CRET)
    text = "\n".join(problems_of(**environ))
    assert named in text
    assert S3CRET not in text


def test_what_belongs_together_is_taken_together() -> None:
    loaded(redis_url="rediss://u@h", redis_password=S3CRET, redis_tls_ca_file=__file__)
    loaded(redis_url="rediss+sentinel://h/s", redis_tls_ca_file=__file__, redis_sentinel_tls="off")
    loaded(redis_url="redis+sentinel://h/s", redis_tls_ca_file=__file__, redis_sentinel_tls="on")
    loaded(
        redis_url="redis+sentinel://h/s",
        redis_sentinel_username="u",
        redis_sentinel_password=S3CRET,
        redis_password=S3CRET,
    )
    loaded(
        nats_user="u",
        nats_password_file=str(written(Path("secret"), S3CRET)),
        nats_tls_cert_file=__file__,
        nats_tls_key_file=__file__,
    )
    settings = loaded(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="u",
        kafka_sasl_password=S3CRET,
        kafka_tls_cert_file=__file__,
        kafka_tls_key_file=__file__,
        kafka_tls_key_password=S3CRET,
    )
    assert settings.secret("kafka_tls_key_password") == S3CRET
    assert S3CRET not in repr(settings)


# The reference


def test_the_reference_has_one_row_per_setting_and_names_every_variable_with_its_meaning() -> None:
    table = reference()
    header, rule, *rows = table.splitlines()
    assert (header, rule) == ("| variable | default | meaning |", "|---|---|---|")
    assert len(rows) == len(Settings.model_fields) - len(SECRETS)
    assert all(row.count(" | ") == 2 and not row.endswith("|  |") for row in rows)
    assert all(f"`{variable(name)}`" in table for name in Settings.model_fields)
    assert table == reference()
