"""What is asked of the brokers about topics: requests and answers, no judgement.

Every coroutine raises KafkaError where no broker answers. Error codes are Kafka's own; 0 is none.
All goes over connections of its own: on the producer's, an answer may come only after that to a slow batch.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.errors import BrokerResponseError, KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v8
from aiokafka.structs import TopicPartition

from bridge.clock import Clock
from bridge.limits import KafkaLimits

ALL_IN_SYNC = -1
TOPIC_RESOURCE = 2


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition as a broker knows it."""

    led: bool
    replicas: int
    in_sync: int
    """How many of the replicas have all that is acked."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as a broker knows it."""

    code: int
    partitions: Sequence[Partition] = ()

    @property
    def replicas(self) -> int:
        """Those of the partition that has the fewest; 0 if that is unknown."""
        return min((partition.replicas for partition in self.partitions), default=0)


_WITHOUT_WORDS = 5
"""Fields of an answer about one partition that holds no words."""


class _Explained(ProduceRequest):  # type: ignore[misc]  # the library has no types
    """In the first version whose answer has words; the library does not ask for it by itself."""

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:  # noqa: ANN401 - the library has no types
        """See there."""
        newest = versions.get(self.API_KEY, (0, 0))[1]
        return self.build(ProduceRequest_v8) if newest >= ProduceRequest_v8.API_VERSION else super().prepare(versions)


class Cluster:
    """The brokers that a client is connected to."""

    def __init__(self, client: Any, clock: Clock, limits: KafkaLimits) -> None:  # noqa: ANN401 - the library has no types
        self._client = client
        self._clock = clock
        self._limits = limits
        self._known = client.cluster

    def partitions(self, topic: str) -> int:
        """How many partitions the client knows; 0 if it does not know the topic."""
        return len(self._known.partitions_for_topic(topic) or ())

    @property
    def brokers(self) -> list[str]:
        """Where the brokers are, as in `host:port`."""
        return sorted(f"{broker.host}:{broker.port}" for broker in self._known.brokers())

    def led(self, topic: str) -> bool:
        """Whether the client knows a leader for each partition."""
        partitions = self._known.partitions_for_topic(topic)
        return bool(partitions) and partitions == self._known.available_partitions_for_topic(topic)

    async def refresh(self, topics: Iterable[str]) -> None:
        """Let the client ask for these topics, now and from now on."""
        for topic in topics:
            self._client.add_topic(topic)
        try:
            async with self._clock.timeout(self._limits.metadata):  # for the day that the library's task has died
                answered = await self._client.force_metadata_update()
        except TimeoutError:
            answered = False
        if not answered:
            raise KafkaError("no broker answers")

    async def find(self, topics: Collection[str]) -> dict[str, Found]:
        """The topics as some broker knows them. This does not create any."""
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        try:
            answer = await self._ask(request)
        except KafkaConnectionError:  # closed by a broker that is well, as it does when the token is over
            answer = await self._ask(request)
        return {
            topic: Found(
                code,
                [
                    Partition(leader >= 0, len(replicas), len(in_sync))
                    for _code, _number, leader, replicas, in_sync, *_ in partitions
                ],
            )
            for code, topic, _internal, partitions in answer.topics
        }

    async def create(
        self,
        topics: Iterable[str],
        partitions: int,
        replication: int,
        configs: Mapping[str, str],
        *,
        validate_only: bool = False,
    ) -> dict[str, int]:
        """Create them; the error code of each. With `validate_only`, create none: the codes are those it would have."""
        no_assignments: list[object] = []
        wanted = [(topic, partitions, replication, no_assignments, list(configs.items())) for topic in topics]
        answer = await self._ask(CreateTopicsRequest(wanted, self._limits.answer_ms, validate_only), controller=True)
        return {topic: code for topic, code, *_ in answer.topic_errors}

    async def describe(self, topics: Iterable[str], names: Collection[str]) -> dict[str, dict[str, str]]:
        """The values of these configurations, of those topics that we may ask about."""
        wanted = [(TOPIC_RESOURCE, topic, list(names)) for topic in topics]
        answer = await self._ask(DescribeConfigsRequest(wanted, include_synonyms=False))
        return {
            topic: {entry[0]: entry[1] for entry in entries}
            for code, _message, _kind, topic, entries in answer.resources
            if not code
        }

    async def try_to_write(self, topics: Iterable[str]) -> dict[str, int]:
        """The error code of a request to each topic that holds no records, and so stores nothing.

        Where no leader is known, any broker is asked: it looks at the rights first, even to a topic that is missing.
        """
        by_leader: dict[int | None, list[tuple[str, list[tuple[int, bytes]]]]] = defaultdict(list)
        for topic in topics:
            leader = self._known.leader_for_partition(TopicPartition(topic, 0))
            by_leader[leader if leader is not None and leader >= 0 else None].append((topic, [(0, b"")]))
        codes: dict[str, int] = {}
        for leader, empty in by_leader.items():
            request = ProduceRequest(None, ALL_IN_SYNC, self._limits.answer_ms, empty)
            answer = await (self._ask(request) if leader is None else self._send(leader, request))
            codes |= {topic: partitions[0][1] for topic, partitions in answer.topics}
        return codes

    async def write(self, topic: str, partition: int, records: bytes) -> int:
        """The error code of one attempt to store these records, a batch; 0 when all replicas in sync have it."""
        leader = self._known.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(None, ALL_IN_SYNC, self._limits.answer_ms, [(topic, [(partition, records)])])
        answer = await (self._ask(request) if leader is None or leader < 0 else self._send(leader, request))
        return int(answer.topics[0][1][0][1])

    def leaders(self, topic: str) -> dict[str, int]:
        """Of each broker that leads a partition of the topic, `host:port`, and the first one of those."""
        found: dict[str, int] = {}
        for partition in sorted(self._known.available_partitions_for_topic(topic) or ()):
            broker = self._known.broker_metadata(self._known.leader_for_partition(TopicPartition(topic, partition)))
            if broker is not None:
                found.setdefault(f"{broker.host}:{broker.port}", partition)
        return found

    async def refusal(self, topic: str, partition: int, records: bytes) -> tuple[int, str]:
        """Error code and words of the leader, of a batch of one record; no words where it is older than Kafka 2.4."""
        leader = self._known.leader_for_partition(TopicPartition(topic, partition))
        request = _Explained(None, ALL_IN_SYNC, self._limits.answer_ms, [(topic, [(partition, records)])])
        answer = (await self._send(leader, request)).topics[0][1][0]
        words = [words for _, words in answer[-2] or ()] if len(answer) > _WITHOUT_WORDS else []
        return int(answer[1]), " ".join(filter(None, words))

    async def _ask(self, request: Any, *, controller: bool = False) -> Any:  # noqa: ANN401 - likewise
        """The answer of any broker, or of the controller if possible."""
        nodes = [broker.nodeId for broker in self._known.brokers()]
        random.shuffle(nodes)
        if controller and self._known.controller is not None:
            nodes.insert(0, self._known.controller.nodeId)
        failure = KafkaError("no broker is known")
        for node in nodes:
            try:
                return await self._send(node, request)
            except KafkaError as error:
                failure = error
        raise failure

    async def _send(self, node: int, request: Any) -> Any:  # noqa: ANN401 - likewise
        return await self._client.send(node, request, group=ConnectionGroup.COORDINATION)


def words(code: int) -> str:
    """Kafka's name for an error."""
    error = for_code(code)
    return f"{error.message}, error {code}"


def explained(error: BaseException) -> str:
    """What went wrong. The library's own words are left out where they may name a topic, and so part of a key."""
    if isinstance(error, BrokerResponseError):
        return f"{error.message}, error {error.errno}"
    return str(error) if type(error) is KafkaError else type(error).__name__
