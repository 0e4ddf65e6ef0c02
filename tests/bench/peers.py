"""The ways to learn of expirations that are put beside each other: the bridge, and what teams use instead.

Each announces keys in the stream of the stage. How keys are written is a part of the way: see `workers/writer.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bridge.commands.embedded import Process
from tests.bench.benthos import Benthos, listening
from tests.bench.benthos import program as benthos_program
from tests.bench.stage import SUBJECT, JetStreamStage
from tests.bench.worker import Worker
from tests.support.servers import wait_until

CLEAN_UP_SECONDS: Final = 60.0
"""As Spring Session does."""


@dataclass(frozen=True)
class Peer:
    """One way."""

    name: str
    start: Callable[[JetStreamStage, AsyncExitStack], Awaitable[Sequence[Process]]]
    """Its processes, once they listen. The first one is killed."""
    good_at: str
    """Where it is the better choice, or what it is good at."""
    part: str = "client"
    """As what its processor time counts."""
    writes: str = "plain"
    """How keys are set for it: see the writers."""
    clean_up_seconds: float = 0.0
    """How often it looks for what was not announced; 0: never."""


def peers(clean_up_seconds: float = CLEAN_UP_SECONDS) -> list[Peer]:
    """All of them; Benthos where the environment names a program."""
    pipeline = benthos_program()
    return [
        Peer(
            "bridge",
            partial(_bridges, 1),
            "nothing is lost, on time, and writers stay as they are",
            part="bridge",
        ),
        Peer("bridge and standby", partial(_bridges, 2), "the same, and a crash is hardly seen", part="bridge"),
        Peer(
            "psubscribe, publish", partial(_worker, "subscriber", 0.0), "the least code; where a loss does not matter"
        ),
        *(
            [Peer("Benthos pipeline", partial(_benthos, pipeline), "no code; hundreds of other sources and sinks")]
            if pipeline
            else []
        ),
        Peer(
            "phantom keys",
            partial(_worker, "phantom", clean_up_seconds),
            "the value is still there when its key expires; what was lost can be looked for",
            writes="phantom",
            clean_up_seconds=clean_up_seconds,
        ),
        Peer(
            "sorted set, polled",
            partial(_worker, "poller", 0.0),
            "loses nothing, and needs no notifications; where one service writes all keys, and seconds do not matter",
            writes="due",
        ),
    ]


async def _bridges(count: int, stage: JetStreamStage, stack: AsyncExitStack) -> Sequence[Process]:
    bridges = [await stack.enter_async_context(stage.bridge())]
    await bridges[0].ready()
    for _ in range(1, count):
        bridges.append(await stack.enter_async_context(stage.bridge()))
        await bridges[-1].stands_by()
    return bridges


async def _worker(
    kind: str, clean_up_seconds: float, stage: JetStreamStage, stack: AsyncExitStack
) -> Sequence[Process]:
    await _prepared(stage)
    worker = stack.enter_context(
        Worker(
            "peer",
            kind=kind,
            subject=SUBJECT,
            redis_url=stage.server.url,
            nats_url=stage.nats.url,
            clean_up_seconds=clean_up_seconds,
        )
    )
    await worker.ready()
    return [worker]


async def _benthos(program: Path, stage: JetStreamStage, stack: AsyncExitStack) -> Sequence[Process]:
    await _prepared(stage)
    benthos = stack.enter_context(Benthos(program, stage.server.url, stage.nats.url))
    await wait_until(partial(listening, stage.redis, benthos), "a subscriber")
    return [benthos]


async def _prepared(stage: JetStreamStage) -> None:
    """What a bridge does itself."""
    await stage.redis.config_set("notify-keyspace-events", "Ex")
    await stage.make_stream()
