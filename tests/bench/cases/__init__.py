"""The cases, by name, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.case import Case
from tests.bench.cases.bridge_cost import BridgeCost
from tests.bench.cases.fast_lane import FastLane
from tests.bench.cases.growth import Growth
from tests.bench.cases.lag import Lag
from tests.bench.cases.recovery import Recovery
from tests.bench.cases.redis_cost import RedisCost
from tests.bench.cases.scale import Scale
from tests.bench.cases.scan import Scan
from tests.bench.cases.throughput_jetstream import ThroughputJetStream
from tests.bench.cases.throughput_kafka import ThroughputKafka

CASES: Final[Mapping[str, Callable[[], Case]]] = {
    "throughput-jetstream": ThroughputJetStream,
    "throughput-kafka": ThroughputKafka,
    "lag": Lag,
    "recovery": Recovery,
    "scan": Scan,
    "redis-cost": RedisCost,
    "bridge-cost": BridgeCost,
    "growth": Growth,
    "fast-lane": FastLane,
    "scale": Scale,
}
