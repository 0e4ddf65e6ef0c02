"""Every broker for the suites that run with each: their names, and the rig of a name."""

import itertools

import pytest

from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.redis_rig import RedisRig
from tests.support.brokers.rigs import BrokerRig, JetStreamRig

ONCE, TRANSACTION = "jetstream-subject", "kafka-transaction"
EACH_BROKER = ["jetstream", "redis", pytest.param("kafka", marks=pytest.mark.kafka)]
"""For the parameter of a fixture that uses `broker_of`."""
EACH_WAY = [*EACH_BROKER, ONCE, pytest.param(TRANSACTION, marks=pytest.mark.kafka)]
"""The same with every way of deduplication."""
_numbers = itertools.count(1)


def broker_of(request: pytest.FixtureRequest) -> BrokerRig:
    """The rig that the fixture's parameter names: one of `EACH_WAY`. Raises ValueError for another name."""
    match request.param:
        case "jetstream":
            return JetStreamRig()
        case "jetstream-subject":
            return JetStreamRig(nats_deduplication="subject")
        case "redis":
            return RedisRig()
        case "kafka":
            return KafkaRig(request.getfixturevalue("kafka_server"))
        case "kafka-transaction":  # a namespace for each: transactional ids are the server's, not the topic's
            namespace = f"rig-{next(_numbers)}"
            server = request.getfixturevalue("kafka_server")
            return KafkaRig(server, kafka_deduplication="transaction", namespace=namespace)
        case other:
            raise ValueError(f"no rig is named {other!r}: add a case")
