"""A lane that fails must not go unnoticed: its records would wait for ever."""

from types import SimpleNamespace
from typing import Any

from bridge.clock import SystemClock
from bridge.sinks.kafka.lanes import Lanes
from bridge.sinks.kafka.load import Load
from tests.support.brokers.rigs import messages
from tests.support.servers import wait_until


class Broken:
    """A producer whose sender has failed, for a reason that is no error of Kafka."""

    client = SimpleNamespace(cluster=SimpleNamespace(leader_for_partition=lambda _: 1))

    def create_batch(self) -> Any:  # noqa: ANN401 - the library has no types
        return SimpleNamespace(append=lambda **_: True)

    async def send_batch(self, *_: object, **__: object) -> None:
        raise OSError("too many open files")


class Nothing:
    """Receipts that must not come."""


async def test_whatever_the_library_raises_ends_the_session() -> None:
    failures: list[BaseException] = []
    lanes = Lanes(Broken(), SystemClock(), lambda *_: (False, ""), failures.append)
    lanes.put(("expired", 0), Load(messages(1), Nothing()), 0, [], 100, 1000)  # type: ignore[arg-type]
    await wait_until(lambda: failures)
    assert str(failures[0]) == "too many open files"
    await lanes.close()
