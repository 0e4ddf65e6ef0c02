"""What a start imports: nothing that it does not need, since that is most of its time."""

import os
import subprocess
import sys
from collections.abc import Set as AbstractSet
from typing import Final

import pytest

from tests.support.servers import ROOT

LIBRARIES: Final = {"aiohttp", "aiokafka", "nats", "prometheus_client", "pydantic", "redis", "rich", "structlog"}
HELP: Final = """
from bridge.cli.main import main
main(["--help"])
"""
SERVICE: Final = """
import bridge.commands.run
from bridge.clock import SystemClock
from bridge.limits import Limits
from bridge.settings import load
from bridge.sinks import create
from bridge.telemetry.events import Telemetry
create(load({}), 0, SystemClock(), Limits(), Telemetry())
"""


def imported(code: str, **settings: str) -> AbstractSet[str]:
    """Which of the libraries are, by then; and asyncio."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n', *sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **{f"BRIDGE_{name.upper()}": it for name, it in settings.items()}},
        capture_output=True,
        text=True,
        check=True,
    )
    return {*said.stdout.splitlines()[-1].split()} & {*LIBRARIES, "asyncio"}


def test_help_waits_for_no_library() -> None:
    assert imported(HELP) == set()


@pytest.mark.parametrize(
    ("sink", "clients"),
    [("jetstream", {"nats", "aiohttp"}), ("kafka", {"aiokafka"}), ("redis", set()), ("stdout", set())],
)
def test_the_service_imports_the_client_of_its_own_sink_alone(sink: str, clients: set[str]) -> None:
    # nats-py itself imports aiohttp.
    assert imported(SERVICE, sink=sink) == {*clients, "asyncio", "prometheus_client", "pydantic", "redis", "structlog"}
