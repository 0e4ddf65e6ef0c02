"""How Redis is reached."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field, SecretStr

from bridge.settings.group import Group, idle, variable
from bridge.settings.redis_url import RedisAddress
from bridge.settings.values import File, ProviderName, RedisUrl, RedisUrlFile, SecretFile, redis_address


class RedisSettings(Group):
    """One server, one behind sentinels, or a cluster."""

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
    redis_credentials_provider: ProviderName | None = Field(
        None,
        description="`module:attribute` of a redis-py `CredentialProvider`, or of a function that makes one: it gives"
        " user and password, and renews them",
    )
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
    redis_backlog: Literal["off", "read", "keep"] = Field(
        "off",
        description="`read`: fill a gap from Redis's replication backlog, if that reaches back far enough;"
        " `keep`: also make Redis keep one. The user needs `+psync +replconf`, which lets it see all data",
    )

    def redis_conflicts(self, given: AbstractSet[str], others: Sequence[RedisAddress] = ()) -> Iterator[str]:
        """What contradicts itself, given the names in `given`. `others`: servers that the same files serve."""
        url = self.redis_address()
        used = (url, *others)
        if not any(one.tls for one in used) and self.redis_sentinel_tls != "on":
            yield from idle(
                given,
                "redis_tls_",
                "BRIDGE_REDIS_URL must begin with rediss://, rediss+sentinel:// or rediss+cluster://",
            )
        if not any(one.sentinels for one in used):
            yield from idle(given, "redis_sentinel_", "BRIDGE_REDIS_URL must begin with redis+sentinel://")
        if self.redis_credentials_provider is not None:
            gives = "BRIDGE_REDIS_CREDENTIALS_PROVIDER gives user and password"
            for name in given & {"redis_username", "redis_password"}:
                yield f"{variable(name)}: has no effect; {gives}"
            if url.username or url.password:
                yield f"BRIDGE_REDIS_URL: must hold no user and no password; {gives}"
        for name, twice in ("redis_username", url.username), ("redis_password", url.password):
            if name in given and twice:
                yield f"{variable(name)}: BRIDGE_REDIS_URL holds one as well; remove one of them"

    def effective_redis_url(self) -> str:
        """The URL of Redis now, password included; see `secret`."""
        return self.secret("redis_url") or ""

    def redis_address(self) -> RedisAddress:
        """What the URL of Redis says now; see `secret`."""
        return redis_address(self.effective_redis_url())
