"""A peer: a pipeline from `redis_pubsub` to `nats_jetstream`, of Benthos or a program of its family.

It is measured where the variable BENTHOS names the program.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from bridge.commands.embedded import Process
from bridge.sinks.jetstream.headers import MESSAGE_ID
from tests.bench.stage import SUBJECT

EXPIRED: Final = "__keyevent@0__:expired"
IN_FLIGHT: Final = 1_024
"""Messages without an ack: as many as its documentation suggests. Its order is lost with more than one."""


class Benthos(Process):
    """One that publishes the key of each notification."""

    def __init__(self, program: Path, redis_url: str, nats_url: str) -> None:
        super().__init__("benthos")
        self._program = program
        self._redis_url = redis_url
        self._nats_url = nats_url

    @property
    def _config(self) -> Path:
        return self.directory / "pipeline.yaml"

    def command(self) -> Sequence[str]:
        """See `Process`. Newer ones have a command `run`, older ones a flag."""
        self._config.write_text(json.dumps(pipeline(self._redis_url, self._nats_url)))
        said = subprocess.run([self._program, "--help"], capture_output=True, text=True, check=False)
        run = ["run"] if re.search(r"^\s+run\b", said.stdout, re.MULTILINE) else ["-c"]
        return [str(self._program), *run, str(self._config)]

    def environment(self) -> Mapping[str, str]:
        """See `Process`."""
        return os.environ


def pipeline(redis_url: str, nats_url: str) -> dict[str, object]:
    """Its configuration, which is YAML, of which JSON is a part."""
    return {
        "http": {"enabled": False},
        "logger": {"level": "ERROR"},
        "input": {"redis_pubsub": {"url": redis_url, "channels": [EXPIRED]}},
        "output": {
            "nats_jetstream": {
                "urls": [nats_url],
                "subject": SUBJECT,
                "headers": {MESSAGE_ID: "${! content() }"},
                "max_in_flight": IN_FLIGHT,
            }
        },
    }


async def listening(redis: Redis, benthos: Benthos) -> bool:
    """Whether it subscribes. Raises RuntimeError if it has ended."""
    if not benthos.running:
        raise RuntimeError(f"{benthos.name} ended\n{benthos.log()}")
    ((_, listeners),) = await redis.pubsub_numsub(EXPIRED)
    return bool(listeners)


def program() -> Path | None:
    """That of the environment."""
    named = os.environ.get("BENTHOS")
    return Path(named).absolute() if named else None
