"""What the parts of the Kafka sink share."""

from dataclasses import dataclass

from bridge.clock import Clock
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.observer import SinkEvents


@dataclass(frozen=True, slots=True)
class Context:
    """The same for all sessions."""

    settings: Settings
    names: TopicTemplate
    clock: Clock
    limits: KafkaLimits
    events: SinkEvents
