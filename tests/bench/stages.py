"""Where the bridge's processor time goes: samples of its stack, folded into the stages of an expiration's way.

A sample belongs to the stage of the innermost function that has one. So a client library's time belongs to the stage
that calls it; what the library does in tasks of its own (reading, flushing) has rules of its own.
"""

import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridge.commands.embedded import Process

SAMPLES_PER_SECOND: Final = 400
STOP_SECONDS: Final = 10.0

OTHER: Final = "event loop and the rest"
STAGES: Final[dict[str, str]] = {
    "hear the notifications": r"bridge/redis/wire/subscription\.py",
    "claim (hints, scripts)": r"Ledger\.(apply|touch)\b|Exchange\.data_received|bridge/redis/(epoch|protocol)/",
    "settle": r"Outboxes\.settle\b|Ledger\.settle\b|Delivery\._settle_done|bridge/redis/ledger/settler\.py",
    "read the outbox": r"bridge/redis/ledger/(outboxes|reader|outbox|entries)\.py|bridge/expiration\.py",
    "encode": r"bridge/cloudevents\.py",
    "ack": (
        r"Window\.on_(acks|reply)|Flight\.(give|answered|acked)|Publisher\.landed|Client\._read_loop"
        r"|nats/protocol/parser\.py|AIOKafkaConnection\._read"
    ),
    "publish": r"bridge/sinks/|bridge/delivery/|Client\._flusher|aiokafka/",
}
"""Stage → functions and files of it. The first that fits a frame is the frame's. A test finds each of ours in the
source (`test_stages.py`).
"""
_RULES: Final = [(stage, re.compile(pattern)) for stage, pattern in STAGES.items()]


class Sampler(Process):
    """py-spy, beside the process that it samples. Works for root, and where ptrace is allowed."""

    def __init__(self, pid: int) -> None:
        super().__init__("py-spy")
        self._pid = pid

    @property
    def _samples(self) -> Path:
        return self.directory / "samples"

    def command(self) -> Sequence[str]:
        """See `Process`."""
        program = str(Path(sys.executable).with_name("py-spy"))
        what = ["--pid", str(self._pid), "--rate", str(SAMPLES_PER_SECOND), "--duration", "unlimited"]
        return [program, "record", *what, "--format", "raw", "--output", str(self._samples)]

    def shares(self) -> dict[str, float]:
        """End it. Stage → its share of the processor time. Raises RuntimeError if there are no samples."""
        self.send_signal(signal.SIGINT)
        self.wait(STOP_SECONDS)
        if not self._samples.exists():
            raise RuntimeError(f"py-spy could not sample: root may, or anybody where ptrace is allowed\n{self.log()}")
        return folded(self._samples.read_text())


def folded(samples: str) -> dict[str, float]:
    """Stage → share of the samples, each a line of `outermost;…;innermost count`."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[_stage(stack.split(";"))] += int(count)
    return {stage: counts[stage] / counts.total() for stage in [*STAGES, OTHER]}


def _stage(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        for stage, rule in _RULES:
            if rule.search(frame):
                return stage
    return OTHER
