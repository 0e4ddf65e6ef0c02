"""What the parts of the JetStream sink share."""

from dataclasses import dataclass

from bridge.clock import Clock
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.observer import SinkEvents
from bridge.sinks.subjects import SubjectTemplate


@dataclass(frozen=True, slots=True)
class Context:
    """The same for all sessions."""

    settings: Settings
    subjects: SubjectTemplate
    clock: Clock
    limits: JetStreamLimits
    events: SinkEvents

    @property
    def once(self) -> bool:
        """Whether a message has a subject of its own, of which the stream takes one."""
        return self.settings.nats_deduplication == "subject"
