"""`expiry-bridge run`: the service."""

import asyncio
import gc

from bridge.errors import BridgeError, ConfigurationError
from bridge.limits import Limits
from bridge.service import FAILED, serve
from bridge.settings import Settings
from bridge.telemetry import logs

MISCONFIGURED = 2
GC_THRESHOLDS = (50_000, 20, 50)
"""Of the collector of cycles: thousands of messages are under way at once, and none of them is part of a cycle. With
Python's own thresholds it goes through all of them again and again, which takes a tenth of the processor time.
"""


def run(settings: Settings, limits: Limits | None = None) -> int:
    """Run the bridge until it is stopped. The exit status. `limits`: see `bridge.service.serve`."""
    logs.configure(settings.log_level, settings.log_format)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        return asyncio.run(serve(settings, limits))
    except ConfigurationError as error:
        for problem in error.problems:
            logs.refused(problem)
        return MISCONFIGURED
    except BridgeError as error:
        logs.refused(str(error))
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last one to see it: the process ends with a failure, and says why
        logs.failed(error)
        return FAILED
