"""A scene with a Kafka."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.deployments.scene import Scene
from tests.support.deployments.stored import StoredMessage
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer, require


class KafkaDeployment(Scene):
    """With a Kafka that others may use, too, and a topic of its own."""

    may_copy = True

    def __init__(
        self,
        stack: AsyncExitStack,
        redis_server: RedisServer,
        kafka_server: KafkaServer,
        settings: Mapping[str, str] | None,
    ) -> None:
        super().__init__(stack, redis_server, settings)
        self.kafka_server = kafka_server
        self.rig = KafkaRig(kafka_server)
        self._link = kafka_server.proxy()
        self.may_copy = self.settings.get("BRIDGE_KAFKA_DEDUPLICATION") != "transaction"

    @classmethod
    @asynccontextmanager
    async def of(
        cls,
        kind: type[RedisServer],
        kafka_server: KafkaServer,
        *,
        redis: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Start a Redis and the proxies, no bridge yet."""
        require(kind)
        async with AsyncExitStack() as stack:
            deployment = cls(stack, stack.enter_context(kind(redis)), kafka_server, settings)
            await deployment._open()
            await stack.enter_async_context(deployment.broker_link)
            yield deployment
            deployment._end()

    @property
    def broker(self) -> KafkaServer:
        """See `Scene`."""
        return self.kafka_server

    @property
    def broker_link(self) -> Proxy:
        """See `Scene`."""
        return self._link

    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        address = self.kafka_server.address if direct else f"127.0.0.1:{self.broker_link.port}"
        return {
            "BRIDGE_SINK": "kafka",
            "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": address,
            "BRIDGE_KAFKA_TOPIC": self.rig.topic,
        }

    async def arrived(self, least: int = 0) -> list[StoredMessage] | None:
        """See `Scene`."""
        if not await self.rig.exists():
            return None
        messages = [
            StoredMessage(
                json.loads(record.value), dict(record.headers)["ce_id"].decode(), record.topic, record.timestamp
            )
            for record in await self.rig.records()
        ]
        return messages if len(messages) >= least else None
