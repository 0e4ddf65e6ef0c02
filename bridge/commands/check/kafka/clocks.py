"""Whether the brokers' clocks are this machine's: records with timestamps that are too far off are refused."""

import time

from bridge.commands.check.findings import Finding, failure, passed, warning
from bridge.commands.check.kafka.topic import Topic
from bridge.errors import NotConnected
from bridge.sinks.kafka.clocks import clocks_ahead, most_ahead_ms
from bridge.sinks.kafka.cluster import Cluster

CLOCK_SECONDS = 1.0
REMEDY = "synchronise the clocks of this machine and of the brokers (NTP)"


async def check_clocks(cluster: Cluster, topic: Topic) -> Finding | None:
    """None: the topic takes every timestamp, or the brokers do not say what time it is."""
    limit_ms = most_ahead_ms(topic.config)
    if topic.names.fixed is None or not topic.examined.exists or limit_ms is None:
        return None
    try:
        ahead = await clocks_ahead(cluster, topic.names.fixed, limit_ms, time.time)
    except NotConnected:
        return None
    return judged(ahead, limit_ms) if ahead else None


def judged(ahead: dict[str, float], limit_ms: int) -> Finding:
    """`ahead`: by how many seconds each broker is, by its address. `limit_ms`: how far ahead of it a record may be."""
    broker, seconds = max(ahead.items(), key=lambda item: abs(item[1]))
    if abs(seconds) <= CLOCK_SECONDS:
        return passed(
            f"those of {len(ahead)} broker{'s' * (len(ahead) != 1)}: within {CLOCK_SECONDS:g} s of this machine's"
        )
    found = f"that of {broker} is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    refusing = [name for name, seconds in ahead.items() if -seconds * 1000 > limit_ms]
    if refusing:
        return failure(f"{found}: {', '.join(refusing)} refuse every record (INVALID_TIMESTAMP)", REMEDY)
    return warning(f"{found}; records that are more than {limit_ms / 1000:g} s ahead are refused", REMEDY)
