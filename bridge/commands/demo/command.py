"""The command: from the sink's name to the exit status, whatever ends the story."""

import asyncio
import signal
import sys
from typing import Any

from bridge.commands.demo.broker import Broker
from bridge.commands.demo.jetstream import JetStreamBroker
from bridge.commands.demo.kafka import KafkaBroker
from bridge.commands.demo.stage import Stage
from bridge.commands.demo.story import Story
from bridge.commands.screen import Screen
from bridge.errors import BridgeError
from bridge.settings import SinkKind
from bridge.tasks import end
from bridge.telemetry import logs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(sink: SinkKind) -> int:
    """Play it with the broker of `sink`. Raises Unavailable, before anything is started: a program is not installed.

    The exit status: 0 all arrived; 1 something is missing, or the demo could not be played; 128 + n ended by signal n.
    """
    broker: Broker = KafkaBroker() if sink is SinkKind.KAFKA else JetStreamBroker()
    stage = Stage(broker)
    stage.require()
    logs.configure("error", None)
    return asyncio.run(_until_signalled(stage))


async def _until_signalled(stage: Stage) -> int:
    loop, playing = asyncio.get_running_loop(), asyncio.create_task(_play(stage), name="demo")
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def end_by(number: signal.Signals) -> None:
        if not received.done():
            received.set_result(number)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # `nohup` means it
            loop.add_signal_handler(number, end_by, number)
    try:
        either: set[asyncio.Future[Any]] = {playing, received}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if received.done():
            await end([playing])
            sys.stderr.write("\nDemo ended; all its processes and files are gone.\n")
            return 128 + received.result()
        return playing.result()
    except BridgeError as error:
        sys.stderr.write(f"\nexpiry-bridge: {error}\n")  # with its lines: it may quote a log
        return 1
    finally:
        await end([playing])


async def _play(stage: Stage) -> int:
    with stage:
        return 0 if await Story(stage, Screen()).tell() else 1
