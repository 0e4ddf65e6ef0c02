"""What `check --publish` says of brokers that are hard to come by."""

from collections.abc import Sequence
from typing import cast

from bridge.commands.check.kafka.publish import try_to_publish
from bridge.commands.check.kafka.remedies import Tools
from bridge.commands.check.test_message import message
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.topics import INVALID_TIMESTAMP


class Refusing:
    """A cluster that refuses what is written, for one reason."""

    def __init__(self, code: int) -> None:
        self._code = code

    async def refresh(self, topics: Sequence[str]) -> None:
        """See `Cluster`."""

    def partitions(self, topic: str) -> int:
        """See `Cluster`."""
        return 1

    async def write(self, topic: str, partition: int, batch: bytes) -> int:
        """See `Cluster`."""
        return self._code


async def test_brokers_with_another_time_are_found_with_what_to_do() -> None:
    settings = Settings.model_validate({"kafka_topic": "t"})
    tools = Tools(settings, TopicTemplate("t", 0))
    cluster = cast("Cluster", Refusing(INVALID_TIMESTAMP))
    finding = await try_to_publish(cluster, "t", "none", tools, message(settings, 0))
    assert finding.level == "fail"
    assert finding.found == "partition 0 of t refuses it (INVALID_TIMESTAMP, error 32)"
    assert finding.remedy.startswith("synchronise this machine's clock with the brokers'")
