"""What all bridges of one namespace must set alike: one expiration is one message, whichever of them announces it."""

from collections.abc import Mapping

from bridge.settings.group import variable
from bridge.settings.model import Settings

ALIKE = ("source", "keys", "sink", "content_mode", "values", "fields")
"""Of every sink. The number of shards is agreed on in Redis, and a bridge with another one does not start."""
ALIKE_OF_SINK: Mapping[str, tuple[str, ...]] = {
    "jetstream": ("nats_stream", "nats_subject", "nats_deduplication"),
    "kafka": ("kafka_topic", "kafka_deduplication"),
    "redis": ("sink_redis_stream",),
    "stdout": (),
}
"""Where messages go. Addresses and logins may differ: one cluster has many."""


def agreement(settings: Settings) -> Mapping[str, str]:
    """Variables and their values, in one way of writing them."""
    names = (*ALIKE, *ALIKE_OF_SINK[settings.sink])
    return {variable(name): _text(getattr(settings, name)) for name in names}


def _text(value: object) -> str:
    return ",".join(sorted(value)) if isinstance(value, list) else str(value)
