"""The sink: makes sessions."""

from bridge.clock import Clock
from bridge.contracts import Message, Order, Session
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.connect import require_compression
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.session import KafkaSession
from bridge.sinks.kafka.transactional import TransactionalSession
from bridge.sinks.kafka.writer import Fitted
from bridge.sinks.observer import SinkEvents


class KafkaSink:
    """See the package for what it guarantees, `bridge.contracts.Sink` for who calls what."""

    def __init__(self, settings: Settings, db: int, clock: Clock, limits: KafkaLimits, events: SinkEvents) -> None:
        """Raises ConfigurationError: `BRIDGE_KAFKA_TOPIC` or `BRIDGE_KAFKA_COMPRESSION` cannot work."""
        self._transactions = settings.kafka_deduplication == "transaction"
        self.order = Order.SHARD if self._transactions else Order.KEY
        self._names = TopicTemplate(settings.kafka_topic, db)
        require_compression(settings)
        self._context = Context(settings, self._names, clock, limits, events)
        self._fitted = Fitted()
        self._name = f"{settings.namespace}:{db}"

    async def connect(self) -> Session:
        """See `Sink.connect`."""
        if self._transactions:
            transactional = TransactionalSession(self._context, self._name, self._fitted)
            await transactional.start()
            return transactional
        session = KafkaSession(self._context)
        await session.start()
        return session

    def channel(self, message: Message) -> str:
        """The topic; where that depends on the key, its template."""
        return self._names.without_key(message)
