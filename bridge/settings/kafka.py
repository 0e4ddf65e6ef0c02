"""How Kafka is reached, and the topic."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field, SecretStr

from bridge.settings.group import Group, idle, variable
from bridge.settings.values import (
    Brokers,
    BrokersOwn,
    Extensions,
    File,
    HttpUrl,
    ProviderName,
    SecretFile,
    Topic,
)

OAUTH, SOURCES = "kafka_sasl_oauth_", ("token_file", "token_url", "provider")
"""Where tokens come from: one of these."""


class KafkaSettings(Group):
    """Of `BRIDGE_SINK=kafka`."""

    kafka_bootstrap_servers: Brokers = Field(
        ["127.0.0.1:9092"], description="comma-separated `host:port` of the brokers to ask first"
    )
    kafka_topic: Topic = Field("redis.expired", description="topic, or a template of `{db}` and `{prefix}`")
    kafka_provision: bool = Field(
        default=True, description="create the topic if missing; an existing one is never changed"
    )
    kafka_deduplication: Literal["none", "transaction"] = Field(
        "none",
        description="`none`: consumers drop copies by `ce_id`; `transaction`: messages already in the topic are not"
        " sent again, for consumers that read only committed ones",
    )
    kafka_partitions: BrokersOwn = Field(6, description="partitions of a topic it creates; -1 = the broker's default")
    kafka_replication: BrokersOwn = Field(
        -1, le=32767, description="replication factor of a topic it creates; -1 = the broker's default"
    )
    kafka_retention_hours: BrokersOwn = Field(
        -1, description="hours that a topic it creates keeps messages; -1 = the broker's default"
    )
    kafka_compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = Field(
        "none", description="`none`, `gzip`, or (needs `expiry-bridge[kafka-compression]`) `lz4`, `snappy`, `zstd`"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None,
        description="`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or, with a token for user and password, `OAUTHBEARER`;"
        " the SASL protocols need it",
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_sasl_password_file: SecretFile | None = None
    kafka_sasl_oauth_token_file: SecretFile | None = Field(
        None, description="OAUTHBEARER: file with the token, read anew at each login"
    )
    kafka_sasl_oauth_token_url: HttpUrl | None = Field(
        None, description="OAUTHBEARER: token service that gives tokens to the client below (OIDC client credentials)"
    )
    kafka_sasl_oauth_client_id: str | None = Field(None, description="client at the token service")
    kafka_sasl_oauth_client_secret: SecretStr | None = Field(None, description="that client's secret")
    kafka_sasl_oauth_client_secret_file: SecretFile | None = None
    kafka_sasl_oauth_scope: str | None = Field(None, description="scope to ask for, if the token service wants one")
    kafka_sasl_oauth_extensions: Extensions | None = Field(
        None, description="SASL extensions, comma-separated `name=value`, as Confluent Cloud wants them"
    )
    kafka_sasl_oauth_provider: ProviderName | None = Field(
        None,
        description="OAUTHBEARER: `module:attribute` of an aiokafka token provider, or of a function that makes one",
    )
    kafka_tls_ca_file: File | None = None
    kafka_tls_cert_file: File | None = None
    kafka_tls_key_file: File | None = None
    kafka_tls_key_password: SecretStr | None = Field(None, description="password of the private key")
    kafka_tls_key_password_file: SecretFile | None = None

    def kafka_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        """What contradicts itself, given the names in `given`."""
        protocol = self.kafka_security_protocol
        if "SSL" not in protocol:
            yield from idle(given, "kafka_tls_", "BRIDGE_KAFKA_SECURITY_PROTOCOL must be SSL or SASL_SSL")
        if "SASL" not in protocol:
            yield from idle(given, "kafka_sasl_", "BRIDGE_KAFKA_SECURITY_PROTOCOL must be SASL_SSL or SASL_PLAINTEXT")
            return
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            yield from self._token_conflicts(given)
            return
        yield from idle(given, OAUTH, "BRIDGE_KAFKA_SASL_MECHANISM must be OAUTHBEARER")
        for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
            if name not in given:
                yield f"{variable(name)}: is unset; BRIDGE_KAFKA_SECURITY_PROTOCOL={protocol} needs it"

    def _token_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        for name in sorted(given & {"kafka_sasl_username", "kafka_sasl_password"}):
            yield f"{variable(name)}: has no effect; OAUTHBEARER takes a token"
        sources = [name for source in SOURCES if (name := f"{OAUTH}{source}") in given]
        if len(sources) != 1:
            wanted = ", ".join(variable(f"{OAUTH}{source}") for source in SOURCES)
            yield f"BRIDGE_KAFKA_SASL_MECHANISM: OAUTHBEARER needs exactly one of {wanted}"
        elif sources == [f"{OAUTH}token_url"]:
            for name in (f"{OAUTH}client_id", f"{OAUTH}client_secret"):
                if name not in given:
                    yield f"{variable(name)}: is unset; BRIDGE_KAFKA_SASL_OAUTH_TOKEN_URL needs it"
        else:
            for prefix in (f"{OAUTH}client_", f"{OAUTH}scope"):
                yield from idle(given, prefix, "it is for BRIDGE_KAFKA_SASL_OAUTH_TOKEN_URL")
            if sources == [f"{OAUTH}provider"]:
                yield from idle(given, f"{OAUTH}extensions", "BRIDGE_KAFKA_SASL_OAUTH_PROVIDER gives them")
