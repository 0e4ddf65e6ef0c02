"""All that can be set, what it means, and what must go together.

A `Settings` guarantees: each field is within its limits, no two contradict each other, each file named could be read.
Not that a server is there, or takes the credentials. It takes nothing but its arguments, so that an embedding program
never picks up a stray variable; `load` is what reads the environment.
"""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from bridge.errors import ConfigurationError
from bridge.limits.scaled import MIB
from bridge.settings.group import Group, idle, variable
from bridge.settings.kafka import KafkaSettings
from bridge.settings.nats import NatsSettings
from bridge.settings.redis import RedisSettings
from bridge.settings.sink_redis import SinkRedisSettings
from bridge.settings.values import Host, LogFormat, Namespace, Patterns, Seconds, SinkKind, Uri


class BridgingSettings(Group):
    """What is bridged, and how."""

    source: Uri = Field("/redis", description="CloudEvents source, part of every id: the same on all instances")
    keys: Patterns = Field(
        ["*"],
        description="comma-separated glob patterns of the keys to bridge, and `!pattern` of those to leave out;"
        " `?` also stands for a comma, `[!]` for a leading `!`",
    )
    fields: Patterns | None = Field(
        None,
        description="patterns, as in `BRIDGE_KEYS`, of the hashes whose fields are bridged as well"
        " (Redis ≥ 7.4, Valkey ≥ 9); unset = none",
    )
    sink: SinkKind = Field(
        SinkKind.JETSTREAM, description="where expirations go: `jetstream`, `kafka`, `redis` or `stdout`"
    )
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
    values: Patterns | None = Field(
        None,
        description="patterns, as in `BRIDGE_KEYS`, of the keys whose last value goes along with the message;"
        " unset = none",
    )
    values_lead: Seconds = Field(
        0.05, ge=0.01, le=3600, description="seconds before its deadline at which the value of a key is read"
    )
    values_max_bytes: int = Field(
        65_536,
        ge=1,
        le=16 * MIB,
        description="largest value, in bytes (16 more for each element of a collection); a larger one is left out",
    )
    values_outbox_bytes: int = Field(
        256 * MIB, ge=1, description="most bytes of values that wait in Redis; further values are left out"
    )
    stuck_seconds: Seconds = Field(
        3600,
        description="how long a message may be refused, while others are acked, until it becomes a dead letter;"
        " 0 = never",
    )
    shutdown_timeout: Seconds = Field(10, gt=0, description="seconds to drain after SIGTERM")


class OperationSettings(Group):
    """How the process shows itself."""

    http_host: Host = Field("127.0.0.1", description="address that health, metrics and the status page listen on")
    http_port: int = Field(8080, ge=0, le=65535, description="port of health, metrics and the status page; 0 = off")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` (may show users' keys), `info`, `warning` or `error`"
    )
    log_format: LogFormat | None = Field(None, description="unset = `console` on a terminal, else `json`")


# The reference lists the last base first.
class Settings(OperationSettings, SinkRedisSettings, KafkaSettings, NatsSettings, RedisSettings, BridgingSettings):
    """Everything that can be set; `reference` makes the documentation of it."""

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
                yield f"{variable(name)}: needs {variable(needed)}; set that as well, or unset this"
        if self.shards > 1 and self.redis_address().nodes:
            yield "BRIDGE_SHARDS: must be 1 with a cluster, where each primary has a shard of its own; unset it"
        if self.values is None:
            yield from idle(given, "values_", "BRIDGE_VALUES must be set")
        elif self.values_outbox_bytes < self.values_max_bytes:
            yield "BRIDGE_VALUES_OUTBOX_BYTES: must not be less than BRIDGE_VALUES_MAX_BYTES"
        sink = self.sink_redis_address()
        yield from self.redis_conflicts(given, [sink] if sink else [])
        yield from self.sink_redis_conflicts()
        yield from self.nats_conflicts(given)
        yield from self.kafka_conflicts(given)

    def bridged_keys(self) -> list[str]:
        """The patterns of `keys`, without the keys of a sink that lie beside them: those may be given a TTL."""
        if self.sink is not SinkKind.REDIS:
            return self.keys
        source, sink = self.redis_address(), self.sink_redis_address()
        if sink is not None and sink.place != source.place:
            return self.keys
        stream = self.sink_redis_stream.replace("{db}", str(source.db)).replace("{prefix}", "*")
        return [*self.keys, f"!{stream}", f"!{{{stream}}}:appended"]

    @property
    def values_limit(self) -> int:
        """Bytes of values that each ledger may hold: a part for each shard; in a cluster, all of it for each node."""
        return max(self.values_outbox_bytes // self.shards, self.values_max_bytes)

    def bridged_fields(self) -> list[str]:
        """The patterns of `fields`, less those that `bridged_keys` leaves out; empty where none are bridged."""
        return [*self.fields, *self.bridged_keys()[len(self.keys) :]] if self.fields else []


SECRETS = Settings.secrets()
"""The fields that are never printed."""
_PAIRS = [(f"{server}_tls_cert_file", f"{server}_tls_key_file") for server in ("redis", "nats", "kafka")]
_PAIRS.append(("nats_user", "nats_password"))
_LOCKED = [(f"{server}_tls_key_password", f"{server}_tls_key_file") for server in ("redis", "nats", "kafka")]
_NEEDS = [*_PAIRS, *((b, a) for a, b in _PAIRS), *_LOCKED]
_NEEDS.append(("redis_sentinel_username", "redis_sentinel_password"))


def folded(name: str) -> str:
    """The secret that a field holds or is the file of; any other field is its own."""
    base = name.removesuffix("_file")
    return base if base in SECRETS else name
