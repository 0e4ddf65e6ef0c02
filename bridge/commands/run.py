"""`expiry-bridge run`: the service."""

import asyncio

from bridge.errors import BridgeError
from bridge.service import FAILED, serve
from bridge.settings import Settings
from bridge.telemetry import logs


def run(settings: Settings) -> int:
    """Run the bridge until it is stopped. The exit status."""
    logs.configure(settings.log_level, settings.log_format)
    try:
        return asyncio.run(serve(settings))
    except BridgeError:
        raise  # the command line prints it in one line
    except Exception as error:  # noqa: BLE001 - the last one to see it: the process ends with a failure, and says why
        logs.failed(error)
        return FAILED
