"""How a worker and whoever started it speak: arguments as JSON on the command line, answers as lines.

Nothing else is imported here, so that a worker starts fast.
"""

import json
import sys
from typing import Any

READY = "ready"


def told() -> dict[str, Any]:
    """In the worker: its arguments."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    return arguments


def say(answer: object) -> None:
    """In the worker: print one line."""
    sys.stdout.write((answer if isinstance(answer, str) else json.dumps(answer)) + "\n")
    sys.stdout.flush()
