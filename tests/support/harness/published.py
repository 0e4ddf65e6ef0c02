"""What a bridge has published, without what came for sentinels."""

import json
from collections.abc import Iterable
from typing import Any, cast

from bridge.cloudevents import EXPIRED_TYPE
from tests.support.servers import Bridge

SENTINEL = b"sentinel:"
"""Keys that only mark a place in the stream: not in what a bridge is said to have published."""
Event = dict[str, Any]
"""A CloudEvent."""


def written(bridge: Bridge) -> list[Event]:
    """The events that a bridge with the stdout sink has written, without sentinels; a last line may be torn."""
    lines = bridge.output().split("\n")[:-1]
    events = [cast("Event", json.loads(line)) for line in lines]
    expired = [event for event in events if event["type"] == EXPIRED_TYPE]
    return [event for event in expired if key_of(event)[: len(SENTINEL)] != SENTINEL]


def key_of(event: Event) -> bytes:
    """The key that expired; the tests' keys are text."""
    return str(event["data"]["key"]).encode()


def ids(events: Iterable[Event]) -> list[str]:
    """Their ids, in order."""
    return [event["id"] for event in events]


def keys(events: Iterable[Event]) -> list[bytes]:
    """Their keys, in order."""
    return [key_of(event) for event in events]


def deadlines(events: Iterable[Event]) -> list[int | None]:
    """Their deadlines, in order."""
    return [event["data"]["deadline_ms"] for event in events]
