"""How NATS is reached, and the stream."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from bridge.settings.group import Group, variable
from bridge.settings.values import (
    BrokersOwn,
    File,
    NatsBytes,
    NatsPrefix,
    NatsToken,
    NatsUrl,
    NatsUrlFile,
    SecretFile,
    Stream,
    Subject,
)

_LOGINS = ("nats_user", "nats_token", "nats_creds_file", "nats_nkey_seed")


class NatsSettings(Group):
    """Of `BRIDGE_SINK=jetstream`."""

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
    nats_deduplication: Literal["window", "subject"] = Field(
        "window",
        description="`window`: the stream drops copies within its duplicate window; `subject`: the id is the last token"
        " of the subject, and the stream takes one message for each subject",
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
        -1,
        description="most bytes that a stream it creates keeps; when full, it drops the oldest messages (with"
        " `subject`: refuses new ones); -1 = no limit",
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

    def nats_conflicts(self, given: AbstractSet[str]) -> Iterator[str]:
        """What contradicts itself, given the names in `given`."""
        ways = [variable(name) for name in _LOGINS if name in given]
        if any(urlsplit(url).username for url in self.effective_nats_urls()):
            ways.append("BRIDGE_NATS_URL")
        if len(ways) > 1:
            yield f"{ways[0]}: set together with {', '.join(ways[1:])}; use only one way to log in to NATS"
        if self.nats_domain and self.nats_api_prefix:
            yield "BRIDGE_NATS_DOMAIN: set together with BRIDGE_NATS_API_PREFIX; set only one of them"
        if self.nats_subject.endswith("{id}") and self.nats_deduplication != "subject":
            needed = "BRIDGE_NATS_DEDUPLICATION=subject"
            yield f"BRIDGE_NATS_SUBJECT: {{id}} needs {needed}; set that as well, or leave {{id}} out"

    def effective_nats_urls(self) -> list[str]:
        """The URLs of NATS now, passwords included; see `secret`."""
        return [url.strip() for url in (self.secret("nats_url") or "").split(",")]
