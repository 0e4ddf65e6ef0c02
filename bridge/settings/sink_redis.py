"""Where the streams of the Redis sink are."""

from pydantic import Field

from bridge.settings.group import Group
from bridge.settings.redis_url import RedisAddress
from bridge.settings.values import RedisUrl, RedisUrlFile, StreamKey, redis_address


class SinkRedisSettings(Group):
    """Of `BRIDGE_SINK=redis`."""

    sink_redis_url: RedisUrl | None = Field(
        None,
        description="server of the streams, as in `BRIDGE_REDIS_URL`, with user and password; unset = the source's"
        " server and login",
    )
    sink_redis_url_file: RedisUrlFile | None = None
    sink_redis_stream: StreamKey = Field(
        "expired", description="key of the stream: a template of `{db}` and `{prefix}`"
    )
    sink_redis_maxlen: int | None = Field(
        None, ge=1, description="entries that a stream keeps, about; older ones are dropped; unset = all"
    )

    def sink_redis_address(self) -> RedisAddress | None:
        """What the sink's own URL says now, if it has one; see `secret`."""
        return redis_address(self.secret("sink_redis_url") or "") if self.has_sink_redis_url else None

    @property
    def has_sink_redis_url(self) -> bool:
        """Whether the sink has a server of its own."""
        return self.sink_redis_url is not None or self.sink_redis_url_file is not None
