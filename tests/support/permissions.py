"""The page about the least rights that the bridge needs: of each topology, what `check` would print."""

from collections.abc import Iterator
from typing import Any

from bridge.commands.check.kafka.remedies import Tools
from bridge.commands.check.nats.remedies import NatsTools
from bridge.commands.check.streams.server import streams_rule
from bridge.redis.admin.acl import acl_rule
from bridge.redis.wire.sentinel import RIGHTS
from bridge.settings import Settings
from bridge.sinks.kafka.names import TopicTemplate

SENTINEL = "redis+sentinel://127.0.0.1/mymaster/0"
REDIS: dict[str, dict[str, Any]] = {
    "One server, with one shard or several": {},
    "The same, where the notification flags are set by someone else (`BRIDGE_REDIS_NOTIFICATIONS=verify`)": {
        "redis_notifications": "verify"
    },
    "One server, with the values of some keys (`BRIDGE_VALUES=share:*`)": {"values": ["share:*"]},
    "Behind Sentinel, on each server": {"redis_url": SENTINEL},
    "A cluster, on each node": {"redis_url": "redis+cluster://127.0.0.1"},
    "One server, whose gaps are filled from the replication backlog (`BRIDGE_REDIS_BACKLOG=read`)": {
        "redis_backlog": "read"
    },
    "One server, with fields of hashes (`BRIDGE_FIELDS=session:*`)": {"fields": "session:*"},
}
NATS: dict[str, dict[str, Any]] = {
    "The bridge creates the stream if it is missing": {},
    "The stream is there (`BRIDGE_NATS_PROVISION=false`)": {"nats_provision": False},
    "Exactly once (`BRIDGE_NATS_DEDUPLICATION=subject`)": {"nats_deduplication": "subject"},
    "Behind a leaf node (`BRIDGE_NATS_DOMAIN=hub`)": {"nats_domain": "hub"},
}
KAFKA: dict[str, dict[str, Any]] = {
    "The bridge creates the topic if it is missing": {},
    "The topic is there (`BRIDGE_KAFKA_PROVISION=false`)": {"kafka_provision": False},
    "Exactly once (`BRIDGE_KAFKA_DEDUPLICATION=transaction`)": {"kafka_deduplication": "transaction"},
    "A topic for each prefix (`BRIDGE_KAFKA_TOPIC=redis.{prefix}`)": {"kafka_topic": "redis.{prefix}"},
}


STREAMS: dict[str, dict[str, Any]] = {
    "One stream": {},
    "A stream for each prefix (`BRIDGE_SINK_REDIS_STREAM=expired:{prefix}`)": {"sink_redis_stream": "expired:{prefix}"},
}


def redis_permissions() -> str:
    """The ACL of Redis, in Markdown, and that of sentinels."""
    parts = {title: acl_rule(Settings(redis_username="bridge", **given)) for title, given in REDIS.items()}
    parts["Behind Sentinel, on each sentinel"] = f"ACL SETUSER bridge {RIGHTS}"
    return _blocks(parts, "")


def nats_permissions() -> str:
    """The permissions of a NATS user, in Markdown."""
    parts = {title: NatsTools.of(Settings(**given), 0).least for title, given in NATS.items()}
    return _blocks(parts, "")


def streams_permissions() -> str:
    """The ACL of the Redis that keeps the streams, in Markdown."""
    return _blocks({title: streams_rule(Settings(**given), "bridge") for title, given in STREAMS.items()}, "")


def kafka_permissions() -> str:
    """The ACLs of Kafka, in Markdown."""
    return _blocks({title: "\n".join(_kafka(given)) for title, given in KAFKA.items()}, "sh")


def _kafka(given: dict[str, Any]) -> list[str]:
    login = {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": "bridge",
        "kafka_sasl_password": "unused",
    }
    settings = Settings(**login, **given)
    return Tools(settings, TopicTemplate(settings.kafka_topic, 0)).least()


def _blocks(parts: dict[str, str], language: str) -> str:
    def lines() -> Iterator[str]:
        for title, text in parts.items():
            yield from ("", f"{title}:", "", f"```{language}", text, "```")

    return "\n".join([*lines(), "", ""])
