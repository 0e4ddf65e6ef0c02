"""Where the streams of the Redis sink are."""

from collections.abc import Iterator

from pydantic import Field

from bridge.settings.group import Group
from bridge.settings.redis_url import RedisAddress
from bridge.settings.values import ProviderName, RedisUrl, RedisUrlFile, StreamKey, redis_address


class SinkRedisSettings(Group):
    """Of `BRIDGE_SINK=redis`."""

    sink_redis_url: RedisUrl | None = Field(
        None,
        description="server of the streams, as in `BRIDGE_REDIS_URL`, with user and password; unset = the source's"
        " server and login",
    )
    sink_redis_url_file: RedisUrlFile | None = None
    sink_redis_credentials_provider: ProviderName | None = Field(
        None,
        description="of that server, as `BRIDGE_REDIS_CREDENTIALS_PROVIDER`; its URL then holds no login",
    )
    sink_redis_stream: StreamKey = Field(
        "expired", description="key of the stream: a template of `{db}` and `{prefix}`"
    )
    sink_redis_maxlen: int | None = Field(
        None, ge=1, description="about how many entries a stream keeps; older ones are dropped; unset = all"
    )

    def sink_redis_conflicts(self) -> Iterator[str]:
        """What contradicts itself."""
        if self.sink_redis_credentials_provider is None:
            return
        address = self.sink_redis_address()
        if address is None:
            yield "BRIDGE_SINK_REDIS_CREDENTIALS_PROVIDER: needs BRIDGE_SINK_REDIS_URL: set that as well, or unset this"
        elif address.username or address.password:
            gives = "BRIDGE_SINK_REDIS_CREDENTIALS_PROVIDER gives user and password"
            yield f"BRIDGE_SINK_REDIS_URL: must hold no user and no password; {gives}"

    def sink_redis_address(self) -> RedisAddress | None:
        """What the sink's own URL says now, if it has one; see `secret`."""
        return redis_address(self.secret("sink_redis_url") or "") if self.has_sink_redis_url else None

    @property
    def has_sink_redis_url(self) -> bool:
        """Whether the sink has a server of its own."""
        return self.sink_redis_url is not None or self.sink_redis_url_file is not None
