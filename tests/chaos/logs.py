"""What the bridges logged and should not have."""

import json
from collections.abc import Iterator

from tests.support.deployments.scene import Scene

EXPECTED_ERRORS = frozenset({"outbox.filled", "audit.distrusted"})
"""The latter where the notifications were switched off again and again."""


def errors(scene: Scene, expected: frozenset[str] = EXPECTED_ERRORS) -> Iterator[str]:
    """Lines of errors, but for those of the events that are `expected`."""
    for bridge in scene.bridges:
        for line in bridge.log(1_000_000).splitlines():
            told = json.loads(line) if line.startswith("{") else {"level": "error", "event": line}
            if told["level"] in {"error", "critical"} and told["event"] not in expected:
                yield f"logged: {line}"
