"""What the doctor says of sentinels."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from bridge.commands.check.redis.sentinel import check_cut_off, check_sentinels
from bridge.errors import BridgeError, NotConnected
from bridge.redis.admin.inspector import Inspector
from bridge.redis.wire.sentinel import Answer

Reply = Answer | BridgeError


SOUND = Answer("10.0.0.9:26379", ("10.0.0.1", 6379), 1, frozenset({"master"}), quorum=2, others=2, replicas=1)
"""Of a sentinel that sees nothing to be fixed."""
ANOTHER = replace(SOUND, address=("10.0.0.1", 6380), epoch=2)
DOWN = replace(SOUND, flags=frozenset({"master", "s_down"}))


def inspector(*replies: Reply, wanted_replicas: str | None = "1") -> Inspector:
    """One that hears this."""

    async def ask() -> list[Reply]:
        return list(replies)

    async def directive(_: str) -> str | None:
        return wanted_replicas

    sentinels = SimpleNamespace(service="mymaster", ask=ask) if replies else None
    return cast("Inspector", SimpleNamespace(sentinels=sentinels, directive=directive))


@pytest.mark.parametrize(
    ("replies", "level", "found"),
    [
        ([SOUND] * 3, "pass", "3 of 3 name 10.0.0.1:6379 as the primary of mymaster; quorum 2 of 3"),
        ([SOUND, SOUND, NotConnected("Sentinel at h:1: gone")], "warn", "2 of 3 name .*; Sentinel at h:1: gone"),
        ([SOUND, ANOTHER], "warn", "1 of 2 name 10.0.0.1:6380 .*, the others another one"),
        ([DOWN, SOUND], "warn", "they consider it down"),
        ([replace(SOUND, replicas=0)] * 3, "warn", "there is no replica to fail over to"),
        ([replace(SOUND, others=1)] * 2, "warn", "quorum 2 of 2: if one sentinel is lost"),
        ([replace(SOUND, quorum=3)] * 3, "warn", "quorum 3 of 3: if one sentinel is lost"),
        ([NotConnected("gone")], "warn", "none answers now"),
    ],
)
async def test_sentinels_are_judged_by_what_a_failover_needs(replies: list[Reply], level: str, found: str) -> None:
    finding = await check_sentinels(inspector(*replies))
    assert finding is not None
    assert finding.level.value == level
    assert bool(finding.remedy) == (level != "pass")
    assert re.search(found, finding.found)


@pytest.mark.parametrize(("value", "level"), [("1", "pass"), ("0", "warn"), (None, "warn")])
async def test_a_primary_that_is_cut_off_should_take_no_writes(value: str | None, level: str) -> None:
    finding = await check_cut_off(inspector(SOUND, wanted_replicas=value))
    assert finding is not None
    assert finding.level.value == level


async def test_nothing_is_said_where_there_are_no_sentinels() -> None:
    assert await check_sentinels(inspector()) is None
    assert await check_cut_off(inspector()) is None
