"""`expiry-bridge demo`: the whole story in about 20 seconds, with servers of its own.

Guarantees: needs nothing but the extra `demo`; touches no server but its own; leaves no process and no file behind,
also on Ctrl-C, SIGTERM and SIGHUP. If it is killed (SIGKILL), its processes end with it (on Linux), its files stay.
Exit status: 0 all arrived; 1 something is missing, or the demo could not be played; 128 + n ended by signal n.
"""

import asyncio
import signal
import sys

from bridge.commands.demo_stage import Stage
from bridge.commands.demo_story import Story
from bridge.commands.embedded import EmbeddedNats, EmbeddedValkey
from bridge.commands.screen import Screen
from bridge.errors import BridgeError
from bridge.telemetry import logs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo() -> int:
    """Play it. The exit status. Raises Unavailable where the servers' programs are not installed."""
    for server in (EmbeddedValkey, EmbeddedNats):
        server.program()
    logs.configure("error", None)
    return asyncio.run(_until_signalled())


async def _until_signalled() -> int:
    loop, playing = asyncio.get_running_loop(), asyncio.create_task(_play(), name="demo")
    received: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        received.append(number)
        playing.cancel()

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # `nohup` means it
            loop.add_signal_handler(number, end, number)
    try:
        return await playing
    except asyncio.CancelledError:
        if not received:
            raise
        sys.stderr.write("\nDemo ended; all its processes and files are gone.\n")
        return 128 + received[0]
    except BridgeError as error:
        sys.stderr.write(f"\nexpiry-bridge: {error}\n")  # with its lines: it may quote a log
        return 1


async def _play() -> int:
    with Stage() as stage:
        return 0 if await Story(stage, Screen()).tell() else 1
