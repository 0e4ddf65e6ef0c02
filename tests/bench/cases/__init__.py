"""The cases, by name, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.case import Case
from tests.bench.cases.lag import Lag
from tests.bench.cases.recovery import Recovery
from tests.bench.cases.throughput_jetstream import ThroughputJetStream
from tests.bench.cases.throughput_kafka import ThroughputKafka

CASES: Final[Mapping[str, Callable[[], Case]]] = {
    "throughput-jetstream": ThroughputJetStream,
    "throughput-kafka": ThroughputKafka,
    "lag": Lag,
    "recovery": Recovery,
}
