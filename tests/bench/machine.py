"""On what it was measured."""

import os
import platform
from importlib.metadata import version as version_of
from pathlib import Path

from tests.support.brokers.kafka import version as kafka_version
from tests.support.servers import NatsServer, RedisServer, version

_LIBRARIES = ("redis", "hiredis", "nats-py", "aiokafka")


def machine() -> dict[str, str]:
    """What matters of the machine, and what ran on it."""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load": f"Load before it began: {os.getloadavg()[0]:.1f}",
        "servers": "; ".join([_short(version(RedisServer)), version(NatsServer), kafka_version()]),
        "clients": ", ".join(f"{name} {version_of(name)}" for name in _LIBRARIES),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _short(said: str) -> str:
    """Without Redis's checksums and allocator."""
    return said.partition(" sha=")[0]
