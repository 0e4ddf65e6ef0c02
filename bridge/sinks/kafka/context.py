"""What the parts of the Kafka sink share."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.clock import Clock, unix_ms
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
    now_ms: Callable[[], int] = unix_ms
    """What brokers compare with their own clocks."""
