"""How Kafka is reached, and the topic."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field, SecretStr

from bridge.settings.group import Group, idle, variable
from bridge.settings.values import Brokers, BrokersOwn, File, SecretFile, Topic


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
        description="`none`: consumers drop copies by `ce_id`; `transaction`: what is in the topic already is not sent"
        " again, for consumers that read what is committed",
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
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; the SASL protocols need it"
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_sasl_password_file: SecretFile | None = None
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
        for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
            if name not in given:
                yield f"{variable(name)}: is unset; BRIDGE_KAFKA_SECURITY_PROTOCOL={protocol} needs it"
