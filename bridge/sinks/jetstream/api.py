"""Where the JetStream API is: on the server, in a domain behind a leaf node, or imported from another account."""

from dataclasses import dataclass

from nats.aio.client import Client
from nats.js import JetStreamContext

from bridge.settings import Settings

HERE = "$JS.API"


@dataclass(frozen=True, slots=True)
class Api:
    """The beginning of its subjects."""

    prefix: str = HERE

    @classmethod
    def of(cls, settings: Settings) -> "Api":
        """Where these settings say it is."""
        if settings.nats_domain:
            return cls(f"$JS.{settings.nats_domain}.API")
        return cls(settings.nats_api_prefix or HERE)

    def context(self, client: Client, timeout: float) -> JetStreamContext:
        """To ask it; `timeout` seconds for each answer."""
        return client.jetstream(prefix=self.prefix, timeout=timeout)

    def subject(self, tokens: str) -> str:
        """One of its subjects, as `STREAM.INFO.EXPIRY`."""
        return f"{self.prefix}.{tokens}"
