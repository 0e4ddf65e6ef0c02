"""Conditions that last for a while and then are over (`conditions.py`): what was set meanwhile is announced, once.

The ordinary run tries one of them, which the seed chooses, for some seconds. `make chaos` tries them all, each for
CHAOS_SECONDS; CHAOS_CONDITION chooses, by names with commas between them, and CHAOS_SEED repeats the choices of a run.
"""

import asyncio
import os
import random
from itertools import count

import pytest
from redis.exceptions import RedisError

from tests.chaos.cases import SECONDS, SEED
from tests.chaos.conditions import CONDITIONS, Ground
from tests.chaos.logs import EXPECTED_ERRORS, errors
from tests.chaos.servers import can_mount, faketime
from tests.support.brokers.kafka import KafkaServer
from tests.support.servers import PATIENCE

LIVES_MS = (50, 3_000)
AT_ONCE = 8
PAUSE = 0.2
LASTS = (2.0, 10.0)
"""Seconds that a condition lasts: often longer than a bridge waits for an answer."""
CALM = (1.0, 4.0)
ON_SOME_MACHINES = {"clock": faketime() is not None, "redis-disk": can_mount(), "broker-disk": can_mount()}
"""Conditions that take something which only some machines have."""
POSSIBLE = [name for name in CONDITIONS if ON_SOME_MACHINES.get(name, True)]
ANY = "any"
"""One of them that needs no Kafka, and no clock that is not the machine's."""


def chosen() -> list[str]:
    """The names of those that are tried."""
    wanted = os.environ.get("CHAOS_CONDITION")
    if wanted is None:
        return [ANY]
    names = POSSIBLE if wanted == "all" else wanted.split(",")
    if unknown := set(names) - set(POSSIBLE):
        raise pytest.UsageError(f"CHAOS_CONDITION: no {', '.join(unknown)} here; there are {', '.join(POSSIBLE)}")
    return names


pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240 + 2 * SECONDS)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.kafka] if name == "topic" else []) for name in chosen()]
)
async def test_what_expires_while_a_condition_lasts_is_announced_once_and_nothing_else_is(
    name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    def kafka() -> KafkaServer:
        server: KafkaServer = request.getfixturevalue("kafka_server")
        return server

    if name == ANY:
        name = random.Random(f"condition {SEED}").choice([one for one in POSSIBLE if one not in {"topic", "clock"}])
    head = f"CHAOS_CONDITION={name} CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}"
    chance = random.Random(f"{name} {SEED}")
    async with CONDITIONS[name](chance, kafka) as ground:
        scene = ground.scene
        await scene.ready_bridge()
        await scene.start_bridge()
        end = asyncio.get_running_loop().time() + SECONDS
        try:
            async with asyncio.TaskGroup() as both:
                strikes = both.create_task(strike(ground, chance, end), name="striker")
                both.create_task(write(ground, random.Random(f"writer {name} {SEED}"), end), name="writer")
            await scene.set(["share:last"])  # what was notified before it is in the stream before it
            await scene.delivered(2 * PATIENCE)
        except BaseException as error:
            error.add_note(f"{head}\n" + "\n\n".join(bridge.log(400) for bridge in scene.bridges))
            raise
        for bridge in scene.bridges:
            assert await bridge.stop(PATIENCE) == 0, bridge.log()
        if ground.judge is not None:
            await ground.judge(strikes.result())
        wrong = [*errors(scene, EXPECTED_ERRORS | ground.expected_errors)]
        assert not wrong, "\n".join([head, *wrong])
    with capsys.disabled():
        print(f"\n{head}: {strikes.result()} times, {len(scene.expected)} expirations")  # noqa: T201 - to be seen
    assert strikes.result()
    assert len(scene.expected) > SECONDS


async def strike(ground: Ground, chance: random.Random, end: float) -> int:
    """Strike again and again until the time is over; how often that was."""
    loop = asyncio.get_running_loop()
    for number in count():
        await asyncio.sleep(chance.uniform(*CALM))
        if loop.time() >= end and number:
            return number
        async with ground.strike():
            await asyncio.sleep(chance.uniform(*LASTS))
    raise AssertionError("unreachable")


async def write(ground: Ground, chance: random.Random, end: float) -> None:
    """Set keys until the time is over. What Redis refuses is not set."""
    loop, numbers = asyncio.get_running_loop(), count()
    while loop.time() < end:
        keys = [f"share:{next(numbers)}" for _ in range(chance.randint(1, AT_ONCE))]
        async with ground.still:
            try:
                await ground.scene.set(keys, chance.randint(*LIVES_MS))
            except RedisError as error:
                if "MISCONF" not in str(error):
                    raise
        await asyncio.sleep(chance.uniform(0, PAUSE))
