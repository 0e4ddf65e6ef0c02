"""The cases, by name, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.case import Case
from tests.bench.cases.bridge_cost import BridgeCost
from tests.bench.cases.deduplication import Deduplication
from tests.bench.cases.fast_lane import FastLane
from tests.bench.cases.fields import Fields
from tests.bench.cases.growth import Growth
from tests.bench.cases.lag import Lag
from tests.bench.cases.ordinary import Ordinary
from tests.bench.cases.peers import Peers
from tests.bench.cases.recovery import Recovery
from tests.bench.cases.redis_cost import RedisCost
from tests.bench.cases.scale import Scale
from tests.bench.cases.scan import Scan
from tests.bench.cases.standby import Standby
from tests.bench.cases.start import Start
from tests.bench.cases.takeover import Takeover
from tests.bench.cases.throughput_jetstream import ThroughputJetStream
from tests.bench.cases.throughput_kafka import ThroughputKafka
from tests.bench.cases.values import Values

CASES: Final[Mapping[str, Callable[[], Case]]] = {
    "throughput-jetstream": ThroughputJetStream,
    "throughput-kafka": ThroughputKafka,
    "lag": Lag,
    "ordinary": Ordinary,
    "recovery": Recovery,
    "takeover": Takeover,
    "peers": Peers,
    "start": Start,
    "scan": Scan,
    "redis-cost": RedisCost,
    "standby": Standby,
    "bridge-cost": BridgeCost,
    "growth": Growth,
    "deduplication": Deduplication,
    "values": Values,
    "fields": Fields,
    "fast-lane": FastLane,
    "scale": Scale,
}
