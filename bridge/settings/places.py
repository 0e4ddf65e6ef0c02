"""Where the settings say that things are, fit for logs: no user, no password, no option of a URL."""

from collections.abc import Sequence
from typing import NamedTuple

from bridge.settings.model import Settings
from bridge.settings.values import SinkKind, redact_url


class Places(NamedTuple):
    """Of one bridge."""

    redis: str
    """URL of the source."""
    broker: Sequence[str]
    """URLs, or host and port, of the sink's servers; none, if it needs none."""
    to: str
    """Stream, topic or key, or the template of those; empty, if there is none."""
    http: str | None
    """Host and port that the bridge itself listens on; None: nowhere."""


def places(settings: Settings) -> Places:
    """Raises Refused where a file with a URL has become unusable."""
    redis = redact_url(settings.effective_redis_url())
    http = f"{settings.http_host}:{settings.http_port}" if settings.http_port else None
    match settings.sink:
        case SinkKind.JETSTREAM:
            return Places(redis, [*map(redact_url, settings.effective_nats_urls())], settings.nats_stream, http)
        case SinkKind.KAFKA:
            return Places(redis, settings.kafka_bootstrap_servers, settings.kafka_topic, http)
        case SinkKind.REDIS:
            own = settings.secret("sink_redis_url")
            return Places(redis, [redact_url(own) if own else redis], settings.sink_redis_stream, http)
        case SinkKind.STDOUT:
            return Places(redis, [], "", http)
