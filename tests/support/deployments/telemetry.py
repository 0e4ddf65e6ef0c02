"""What a bridge process says of itself: the lines of its log, and why it is not ready."""

import json
from http import HTTPStatus
from typing import Any

from tests.support.servers import PATIENCE, Bridge, wait_until


def events(bridge: Bridge, *names: str) -> list[dict[str, Any]]:
    """The lines of a bridge's log that tell of such events, oldest first."""
    lines = (json.loads(line) for line in bridge.log(1_000_000).splitlines() if line.startswith("{"))
    return [line for line in lines if line.get("event") in names]  # the stdout sink writes lines, too


async def unready(bridge: Bridge) -> dict[str, str]:
    """Why it is not ready, as soon as it is not."""
    reasons: dict[str, str] = {}

    async def is_unready() -> bool:
        nonlocal reasons
        status, body = await bridge.get("/readyz")
        reasons = json.loads(body).get("reasons", {})
        return status == HTTPStatus.SERVICE_UNAVAILABLE

    await wait_until(is_unready, bridge.log, PATIENCE)
    assert all(reasons.values())
    return reasons
