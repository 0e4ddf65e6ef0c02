"""Topics: looked up, created if missing and wanted, checked, never changed.

Nothing in here is on the hot path: a topic is asked for once per session, unless it is not as it should be.
Where the topic depends on the key, no text names it: texts are logged, and keys may be personal data.
"""

import asyncio
import random
from collections.abc import Collection, Container
from dataclasses import dataclass
from enum import Enum, auto

from aiokafka.errors import KafkaError

from bridge.errors import NotConnected, Refused
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Cluster, explained, words
from bridge.sinks.kafka.context import Context

HOUR_MS = 3_600_000

NO_ERROR, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, INVALID_TOPIC, DENIED, CLUSTER_DENIED = 0, 3, 5, 17, 29, 31
NOT_LEADER, TOO_LARGE, FEW_IN_SYNC, FEWER_IN_SYNC, INVALID_TIMESTAMP = 6, 10, 19, 20, 32
EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION, INVALID_CONFIG, POLICY_VIOLATION = 36, 37, 38, 40, 44
MAX_MESSAGE, CLEANUP, MIN_IN_SYNC = "max.message.bytes", "cleanup.policy", "min.insync.replicas"
RETENTION = "retention.ms"
BEFORE_MAX = "message.timestamp.before.max.ms"


class Standing(Enum):
    """How a topic stands."""

    READY = auto()
    MISSING = auto()
    CLOSED = auto()
    """To us, by its name or by our rights."""
    UNSUITABLE = auto()
    """It cannot be created as the settings ask."""
    LATER = auto()
    """Nobody can tell now."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a topic, and why it is not ready."""

    standing: Standing
    reason: str = ""
    until: float = 0.0
    """When to look again, in monotonic seconds."""


READY = Finding(Standing.READY)


def new_config(settings: Settings) -> dict[str, str]:
    """The configuration of a topic that the bridge creates."""
    config = {CLEANUP: "delete"}
    if settings.kafka_retention_hours > 0:
        config[RETENTION] = str(settings.kafka_retention_hours * HOUR_MS)
    if settings.kafka_replication > 1:
        config[MIN_IN_SYNC] = str(settings.kafka_replication - 1)
    return config


class Topics:
    """The topics of one session."""

    def __init__(self, cluster: Cluster, context: Context) -> None:
        self._cluster = cluster
        self._names = context.names
        self._settings = context.settings
        self._events = context.events
        self._clock = context.clock
        self._limits = context.limits
        self._found: dict[str, Finding] = {}
        self._missed: dict[str, float] = {}
        """Since when a topic is known to be missing."""
        self._configs: dict[str, dict[str, str]] = {}
        self._vanishing: set[str] = set()
        self._looking = asyncio.Lock()

    async def prepare(self) -> None:
        """Check the one topic; create it if it is missing and wanted. Nothing to do where it depends on the key.

        Raises Refused: it is missing or cannot work. NotConnected or KafkaError: that cannot be known now.
        """
        topic = self._names.fixed
        if topic is None:
            return
        finding = self._found[topic] = (await self._look({topic}))[topic]
        if finding.standing is Standing.LATER:
            raise NotConnected(finding.reason)
        if finding is not READY:
            raise Refused(finding.reason)
        await self._warn(topic)

    async def ensure(self, topics: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Why messages will never be taken, and why they are not now, by topic. All other topics are ready."""
        now = self._clock.monotonic()
        if not all(self._known(topic, now) for topic in topics):
            async with self._looking:
                unknown = [topic for topic in topics if not self._known(topic, now)]
                if unknown:
                    self._found |= await self._look(unknown)
        never, later = dict[str, str](), dict[str, str]()
        for topic in topics:
            finding = self._found[topic]
            if finding is READY:
                if not self._cluster.partitions(topic):
                    later[topic] = f"{self._named(topic)} is gone"
            elif self._hopeless(topic, finding.standing, now):
                never[topic] = finding.reason
            else:
                later[topic] = finding.reason
        return never, later

    def unsuitable(self, topic: str) -> bool:
        """Whether that topic, of several, cannot be created as the settings ask: others may be taken."""
        return self._names.fixed is None and self._found[topic].standing is Standing.UNSUITABLE

    def doubt(self, topic: str) -> None:
        """It has refused what it should take: it is looked at again before it is used."""
        self._found.pop(topic, None)

    def partitions(self, topic: str) -> int:
        """How many partitions it has, of a topic that is ready."""
        return self._cluster.partitions(topic)

    def limit(self, topic: str) -> int | None:
        """The most bytes of a batch of records, when last asked for; None if the broker does not tell us."""
        value = self._configs.get(topic, {}).get(MAX_MESSAGE)
        return int(value) if value else None

    def oldest_ms(self, topic: str) -> int | None:
        """How old a record's timestamp may be, when last asked for; None if the broker does not tell us."""
        value = self._configs.get(topic, {}).get(BEFORE_MAX)
        return int(value) if value else None

    async def describe(self, topics: Collection[str]) -> None:
        """Ask (again) how the topics are configured. Raises KafkaError."""
        self._configs |= await self._cluster.describe(topics, (MAX_MESSAGE, CLEANUP, MIN_IN_SYNC, BEFORE_MAX))

    async def vanished(self) -> str | None:
        """Look whether the topics that were ready still are; if one is gone, that in words.

        Once is not enough: a broker may be slow to learn of a topic that is new. Raises KafkaError: no broker answers.
        """
        ready = [topic for topic, finding in self._found.items() if finding is READY]
        some = random.sample(ready, min(len(ready), self._limits.topics_at_once))
        found = await self._cluster.find({*some, *self._vanishing})
        missing = {topic for topic, about in found.items() if about.code == UNKNOWN_TOPIC}
        gone, self._vanishing = missing & self._vanishing, missing
        return f"{self._named(gone.pop())} is gone" if gone else None

    def _known(self, topic: str, now: float) -> bool:
        finding = self._found.get(topic)
        if finding is READY:
            return self._cluster.partitions(topic) > 0
        return finding is not None and now < finding.until

    def _hopeless(self, topic: str, standing: Standing, now: float) -> bool:
        """Whether to give up on the topic. Never if it is the only one: an operator will fix it."""
        if self._names.fixed is not None:
            return False
        if standing is Standing.MISSING:
            return now - self._missed.setdefault(topic, now) >= self._limits.topic_missing
        return standing is Standing.CLOSED

    async def _look(self, topics: Collection[str]) -> dict[str, Finding]:
        """How the topics stand, after what can be done about it."""
        created: dict[str, Finding] = {}
        try:
            found = await self._find(topics)
            missing = [topic for topic, finding in found.items() if finding.standing is Standing.MISSING]
            if missing and self._settings.kafka_provision:
                created = await self._create(missing)
            found |= created
            ready = [topic for topic, finding in found.items() if finding is READY]
            if ready:
                found |= await self._await_metadata(ready, created)
                found |= await self._closed_to_us(ready)
                await self.describe(ready)
        except KafkaError as error:
            return dict.fromkeys(topics, Finding(Standing.LATER, f"Kafka does not answer: {explained(error)}"))
        for topic in ready:
            self._missed.pop(topic, None)
        return found

    async def _find(self, topics: Collection[str]) -> dict[str, Finding]:
        found = await self._cluster.find(topics)
        return {topic: self._judged(topic, about.code) for topic, about in found.items()}

    async def _create(self, topics: Collection[str]) -> dict[str, Finding]:
        settings = self._settings
        codes = await self._cluster.create(
            topics, settings.kafka_partitions, settings.kafka_replication, new_config(settings)
        )
        return {topic: self._judged_new(topic, code) for topic, code in codes.items()}

    async def _await_metadata(self, topics: Collection[str], new: Container[str]) -> dict[str, Finding]:
        """Return when the client knows the topics, too, and leaders for the new ones.

        A partition that has no leader must not hold up the others of a topic that is in use.
        """

        def known(topic: str) -> bool:
            return self._cluster.led(topic) if topic in new else self._cluster.partitions(topic) > 0

        since = self._clock.monotonic()
        while not all(map(known, topics)) and self._clock.monotonic() - since < self._limits.topic_ready:
            await self._cluster.refresh(topics)
            await self._clock.sleep(self._limits.topic_poll)
        unknown = [topic for topic in topics if not self._cluster.partitions(topic)]
        return {topic: Finding(Standing.LATER, f"{self._named(topic)} is not ready yet") for topic in unknown}

    async def _closed_to_us(self, topics: Collection[str]) -> dict[str, Finding]:
        """Found out beforehand: a batch that is refused for this costs the producer, and so holds up all others."""
        codes = await self._cluster.try_to_write(topics)
        return {topic: self._judged(topic, DENIED) for topic, code in codes.items() if code == DENIED}

    def _judged(self, topic: str, code: int) -> Finding:
        named = self._named(topic)
        if code in {NO_ERROR, LEADER_NOT_AVAILABLE}:
            return READY
        if code == UNKNOWN_TOPIC:
            remedy = "create it, or set BRIDGE_KAFKA_PROVISION=true"
            return Finding(Standing.MISSING, f"{named} does not exist: {remedy}")
        if code == DENIED:
            return self._closed(f"the Kafka user may not write to {named}: allow it to (ACL operation Write)")
        if code == INVALID_TOPIC:
            return self._closed(f"{named} has a name that Kafka refuses: change BRIDGE_KAFKA_TOPIC")
        return Finding(Standing.LATER, f"{named} is not ready: {words(code)}")

    def _judged_new(self, topic: str, code: int) -> Finding:
        what = f"{self._named(topic)} does not exist, and"
        if code in {NO_ERROR, EXISTS}:
            return READY
        if code in {DENIED, CLUSTER_DENIED}:
            return self._closed(
                f"{what} the Kafka user may not create it: do so, or allow it to (ACL operation Create)"
            )
        if code in {INVALID_TOPIC, POLICY_VIOLATION}:
            return self._closed(f"{what} cannot be created ({words(code)}): change BRIDGE_KAFKA_TOPIC, or create it")
        if code in {INVALID_PARTITIONS, INVALID_REPLICATION, INVALID_CONFIG}:
            remedy = "check BRIDGE_KAFKA_PARTITIONS, BRIDGE_KAFKA_REPLICATION and BRIDGE_KAFKA_RETENTION_HOURS"
            return Finding(Standing.UNSUITABLE, f"{what} cannot be created ({words(code)}): {remedy}")
        return Finding(Standing.LATER, f"{what} cannot be created now: {words(code)}")

    def _closed(self, reason: str) -> Finding:
        return Finding(Standing.CLOSED, reason, self._clock.monotonic() + self._limits.topic_recheck)

    def _named(self, topic: str) -> str:
        return f"topic {topic}" if self._names.fixed is not None else "the message's topic"

    async def _warn(self, topic: str) -> None:
        config, replicas = self._configs.get(topic, {}), (await self._cluster.find([topic]))[topic].replicas
        if "compact" in config.get(CLEANUP, ""):
            self._events.stream_warned(
                f"topic {topic} is compacted: of a key's expirations only the last is kept; set cleanup.policy=delete"
            )
        if replicas == 1 and len(self._cluster.brokers) > 1:
            self._events.stream_warned(f"topic {topic} has one replica: what is acked is lost with its broker")
        if replicas > 1 and config.get(MIN_IN_SYNC) == "1":
            self._events.stream_warned(
                f"topic {topic} acks what a single broker has: use 3 replicas and min.insync.replicas=2"
            )
