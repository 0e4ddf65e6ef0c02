"""All that can be set, what it means, and what must go together.

A `Settings` guarantees: each field is within its limits, no two contradict each other, each file named could be read.
Not that a server is there, or takes the credentials. It takes nothing but its arguments, so that an embedding program
never picks up a stray variable; `load` is what reads the environment.
"""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from bridge.errors import ConfigurationError, Refused
from bridge.settings.redis_url import RedisAddress
from bridge.settings.values import (
    Brokers,
    BrokersOwn,
    File,
    Host,
    LogFormat,
    Namespace,
    NatsBytes,
    NatsPrefix,
    NatsToken,
    NatsUrl,
    NatsUrlFile,
    Patterns,
    RedisUrl,
    RedisUrlFile,
    Seconds,
    SecretFile,
    SinkKind,
    Stream,
    Subject,
    Topic,
    Uri,
    check_quotes,
    check_text,
    nats_servers,
    read_secret,
    redis_address,
)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"BRIDGE_{name.upper()}"


class Settings(BaseModel):
    """Everything that can be set; `reference` makes the documentation of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    source: Uri = Field("/redis", description="CloudEvents source, part of every id: the same on all instances")
    keys: Patterns = Field(
        ["*"],
        description="comma-separated glob patterns of the keys to bridge, and `!pattern` of those to leave out;"
        " `?` also stands for a comma, `[!]` for a leading `!`",
    )
    sink: SinkKind = Field(SinkKind.JETSTREAM, description="where expirations go: `jetstream`, `kafka` or `stdout`")
    content_mode: Literal["structured", "binary"] = Field(
        "structured", description="`structured` (one JSON object) or `binary` (CloudEvents attributes in headers)"
    )
    namespace: Namespace = Field("expiry-bridge", description="prefix of the bridge's own Redis keys")
    scan_interval: Seconds = Field(900, description="seconds between full scans; 0 = only at start and after a gap")
    shards: int = Field(
        1,
        ge=1,
        le=256,
        description="parts of the ledger, which several bridges share evenly: the same on all instances",
    )
    outbox_limit: int = Field(1_000_000, ge=1, description="expirations in the outbox at which the sweep pauses")
    stuck_seconds: Seconds = Field(
        3600,
        description="how long a message may be refused, while others are acked, until it becomes a dead letter;"
        " 0 = never",
    )
    shutdown_timeout: Seconds = Field(10, gt=0, description="seconds to drain after SIGTERM")

    redis_url: RedisUrl = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="`redis://[user:password@]host:port/db`, `rediss://...` (TLS) or `unix:///path?db=0`; with Sentinel"
        " `redis+sentinel://[user:password@]host:port,host:port/service/db`, `rediss+sentinel://...`; a cluster:"
        " `redis+cluster://[user:password@]host:port,host:port`, `rediss+cluster://...`",
    )
    redis_url_file: RedisUrlFile | None = None
    redis_username: str | None = Field(None, description="ACL user; unset = the default user")
    redis_password: SecretStr | None = Field(None, description="password of the Redis user")
    redis_password_file: SecretFile | None = None
    redis_tls_ca_file: File | None = None
    redis_tls_cert_file: File | None = None
    redis_tls_key_file: File | None = None
    redis_tls_key_password: SecretStr | None = Field(None, description="password of the private key")
    redis_tls_key_password_file: SecretFile | None = None
    redis_sentinel_username: str | None = Field(None, description="ACL user at the sentinels; needs the password")
    redis_sentinel_password: SecretStr | None = Field(
        None, description="password at the sentinels; that of Redis is never sent to them"
    )
    redis_sentinel_password_file: SecretFile | None = None
    redis_sentinel_tls: Literal["as-redis", "on", "off"] = Field(
        "as-redis",
        description="TLS to the sentinels, with the files above: `on`, `off`, or `as-redis` (with `rediss+sentinel://`)",
    )
    redis_notifications: Literal["configure", "verify"] = Field(
        "configure",
        description="`configure`: add missing flags with CONFIG SET, keeping those set; `verify`: only check",
    )

    nats_url: NatsUrl = Field(
        SecretStr("nats://127.0.0.1:4222"),
        description="one or several comma-separated URLs of one cluster: `nats://`, `tls://`; or `ws://`, `wss://`",
    )
    nats_url_file: NatsUrlFile | None = None
    nats_stream: Stream = Field("EXPIRY", description="name of the JetStream stream")
    nats_subject: Subject = Field(
        "expired.{db}.{prefix}",
        description="template of `{db}`, `{prefix}` (the key up to the first `:`) and `{key}` (its parts as tokens)",
    )
    nats_provision: bool = Field(
        default=True, description="create the stream if missing; an existing one is never changed"
    )
    nats_replicas: int | None = Field(
        None, ge=1, le=5, description="copies of each message in a stream it creates; unset = 3 in a cluster, else 1"
    )
    nats_retention_hours: BrokersOwn = Field(
        -1, description="hours that a stream it creates keeps messages; -1 = the broker's default, for ever"
    )
    nats_max_bytes: NatsBytes = Field(
        -1, description="bytes that a stream it creates keeps at most, then dropping the oldest; -1 = no bound"
    )
    nats_domain: NatsToken | None = Field(
        None, description="JetStream domain, where the stream is behind a leaf node; unset = that of the server"
    )
    nats_api_prefix: NatsPrefix | None = Field(
        None, description="prefix of the JetStream API, where the account imports it; unset = `$JS.API`"
    )
    nats_user: str | None = Field(None, description="user; needs the password")
    nats_password: SecretStr | None = Field(None, description="password of the NATS user")
    nats_password_file: SecretFile | None = None
    nats_token: SecretStr | None = Field(None, description="authentication token, instead of a user")
    nats_token_file: SecretFile | None = None
    nats_creds_file: File | None = Field(None, description="credentials file (JWT and seed), instead of a user")
    nats_nkey_seed: SecretStr | None = Field(None, description="seed of an nkey, instead of a user")
    nats_nkey_seed_file: SecretFile | None = None
    nats_tls_ca_file: File | None = None
    nats_tls_cert_file: File | None = None
    nats_tls_key_file: File | None = None
    nats_tls_key_password: SecretStr | None = Field(None, description="password of the private key")
    nats_tls_key_password_file: SecretFile | None = None

    kafka_bootstrap_servers: Brokers = Field(
        ["127.0.0.1:9092"], description="comma-separated `host:port` of the brokers to ask first"
    )
    kafka_topic: Topic = Field("redis.expired", description="topic, or a template of `{db}` and `{prefix}`")
    kafka_provision: bool = Field(
        default=True, description="create the topic if missing; an existing one is never changed"
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

    http_host: Host = Field("127.0.0.1", description="address that health and metrics listen on")
    http_port: int = Field(8080, ge=0, le=65535, description="port of health and metrics; 0 = off")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` (may show users' keys), `info`, `warning` or `error`"
    )
    log_format: LogFormat | None = Field(None, description="unset = `console` on a terminal, else `json`")

    _text = field_validator("*", mode="before")(check_text)

    @field_validator("*", mode="before")
    @classmethod
    def _bare(cls, value: object, info: ValidationInfo) -> object:
        """A password may well begin and end with a quote; nothing else does on purpose."""
        name = info.field_name or ""
        return value if name in SECRETS and not name.endswith("_url") else check_quotes(value)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if problems := [*self._conflicts()]:
            raise ConfigurationError(problems)
        return self

    def _conflicts(self) -> Iterator[str]:
        given = {folded(name) for name in self.model_fields_set if getattr(self, name) is not None}
        for name in SECRETS:
            if {name, f"{name}_file"} <= self.model_fields_set:
                yield f"{variable(name)}: set together with {variable(name)}_FILE; set only one of them"
        for name, needed in _NEEDS:
            if name in given and needed not in given:
                yield f"{variable(name)}: needs {variable(needed)}; set that, too, or unset this"
        yield from self._redis_conflicts(given)
        yield from self._nats_conflicts(given)
        yield from self._kafka_conflicts(given)

    def _redis_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        url = self.redis_address()
        if not url.tls and self.redis_sentinel_tls != "on":
            yield from _idle(
                given,
                "redis_tls_",
                "BRIDGE_REDIS_URL must begin with rediss://, rediss+sentinel:// or rediss+cluster://",
            )
        if not url.sentinels:
            yield from _idle(given, "redis_sentinel_", "BRIDGE_REDIS_URL must begin with redis+sentinel://")
        if url.nodes and self.shards > 1:
            yield "BRIDGE_SHARDS: must be 1 with a cluster, where each primary has a shard of its own; unset it"
        for name, twice in ("redis_username", url.username), ("redis_password", url.password):
            if name in given and twice:
                yield f"{variable(name)}: BRIDGE_REDIS_URL holds one, too; remove one of them"

    def _nats_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        ways = [variable(name) for name in _NATS_LOGINS if name in given]
        if any(urlsplit(url).username for url in self.effective_nats_urls()):
            ways.append("BRIDGE_NATS_URL")
        if len(ways) > 1:
            yield f"{ways[0]}: set together with {', '.join(ways[1:])}; use only one way to log in to NATS"
        if self.nats_domain and self.nats_api_prefix:
            yield "BRIDGE_NATS_DOMAIN: set together with BRIDGE_NATS_API_PREFIX; set only one of them"

    def _kafka_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        protocol = self.kafka_security_protocol
        if "SSL" not in protocol:
            yield from _idle(given, "kafka_tls_", "BRIDGE_KAFKA_SECURITY_PROTOCOL must be SSL or SASL_SSL")
        if "SASL" not in protocol:
            yield from _idle(given, "kafka_sasl_", "BRIDGE_KAFKA_SECURITY_PROTOCOL must be SASL_SSL or SASL_PLAINTEXT")
            return
        for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
            if name not in given:
                yield f"{variable(name)}: is unset; BRIDGE_KAFKA_SECURITY_PROTOCOL={protocol} needs it"

    def secret(self, name: str) -> str | None:
        """The value of one of `SECRETS` now: its file is read at each call, so it may change without a restart.

        Raises Refused, naming the variable, where the file has become unreadable or its contents unusable.
        """
        inline: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return inline.get_secret_value() if inline else None
        try:
            value = read_secret(path)
            if name in _URL_CHECKS:
                _URL_CHECKS[name](value)
        except ValueError as error:
            raise Refused(f"{variable(name)}_FILE: {error}") from None
        return value

    def effective_redis_url(self) -> str:
        """The URL of Redis now, password included; see `secret`."""
        return self.secret("redis_url") or ""

    def redis_address(self) -> RedisAddress:
        """What the URL of Redis says now; see `secret`."""
        return redis_address(self.effective_redis_url())

    def effective_nats_urls(self) -> list[str]:
        """The URLs of NATS now, passwords included; see `secret`."""
        return [url.strip() for url in (self.secret("nats_url") or "").split(",")]


SECRETS = tuple(name for name in Settings.model_fields if f"{name}_file" in Settings.model_fields)
"""Never printed. `<name>_file` may hold one instead. The URLs count, as they may hold a password."""
_URL_CHECKS: dict[str, Callable[[str], object]] = {"redis_url": redis_address, "nats_url": nats_servers}
_PAIRS = [(f"{server}_tls_cert_file", f"{server}_tls_key_file") for server in ("redis", "nats", "kafka")]
_PAIRS.append(("nats_user", "nats_password"))
_LOCKED = [(f"{server}_tls_key_password", f"{server}_tls_key_file") for server in ("redis", "nats", "kafka")]
_NEEDS = [*_PAIRS, *((b, a) for a, b in _PAIRS), *_LOCKED]
_NEEDS.append(("redis_sentinel_username", "redis_sentinel_password"))
_NATS_LOGINS = ("nats_user", "nats_token", "nats_creds_file", "nats_nkey_seed")


def folded(name: str) -> str:
    """The secret that a field holds or is the file of; any other field is its own."""
    base = name.removesuffix("_file")
    return base if base in SECRETS else name


def _idle(given: AbstractSet[str], prefix: str, requirement: str) -> Iterator[str]:
    return (f"{variable(name)}: has no effect; {requirement}" for name in sorted(given) if name.startswith(prefix))
