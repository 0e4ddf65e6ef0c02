"""The status page in a browser: a bridge behind it through a gap, messages that are stuck, and a takeover."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from tests.support.chromium import Page, chromium
from tests.support.contract import LEASE, STREAM
from tests.support.deployments.jetstream import Deployment
from tests.support.redis.commands import user_of
from tests.support.servers import PATIENCE, Bridge, NatsServer, Redis8Server, RedisServer, require, wait_until

pytestmark = pytest.mark.unmeasured

BY_HAND = {"BRIDGE_NATS_PROVISION": "false"}
SECRET = "patient"
"""In the name of every key."""
WIDE, TELEPHONE = (1200, 900), (390, 844)
CONTRAST = """(() => {
  const parsed = (text) => { const found = text.match(/[\\d.]+/g).map(Number); return found; };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, noscript, script, style")) continue;
    const [high, low] = [light(parsed(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()"""
"""Texts that contrast too little with what is behind them, for WCAG 2 AA."""


@asynccontextmanager
async def after_a_gap_a_stuck_subject_and_a_takeover(kind: type[RedisServer]) -> AsyncIterator[tuple[Bridge, Bridge]]:
    """The bridge that all that has happened to, and one that stands by."""
    async with Deployment.of(kind, settings=BY_HAND) as deployment, deployment.jetstream() as jetstream:
        config = StreamConfig(
            STREAM,
            subjects=["expired.>"],
            max_msgs_per_subject=5,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
        )
        await jetstream.add_stream(config)
        first = await deployment.ready_bridge(direct=True)
        second = await deployment.start_bridge(direct=True)
        await listening(deployment, 2)
        await deployment.set([f"{SECRET}{number}:1" for number in range(20)])
        for _ in range(2):  # then the holder's place is one that the standby has heard
            await has_moved_on(deployment)
        first.kill()
        await wait_until(lambda: takeovers(second), second.log, PATIENCE)
        await deployment.redis.client_kill_filter(_type="pubsub", skipme=True)
        await wait_until(lambda: gaps(second), second.log, PATIENCE)
        third = await deployment.start_bridge(direct=True)
        await listening(deployment, 2)
        await deployment.set([f"{SECRET}:{number}" for number in range(7)])
        await wait_until(lambda: stuck(second), second.log, PATIENCE)
        await wait_until(lambda: stood_by(second), second.log, PATIENCE)
        yield second, third


async def listening(deployment: Deployment, bridges: int) -> None:
    async def do_listen() -> bool:
        return len(await deployment.redis.pubsub_channels("*:alive:*")) >= bridges

    await wait_until(do_listen, f"{bridges} bridges that listen", PATIENCE)


async def has_moved_on(deployment: Deployment) -> None:
    before = await deployment.redis.hget(LEASE, "place")

    async def is_another() -> bool:
        return await deployment.redis.hget(LEASE, "place") != before

    await wait_until(is_another, "a later place", PATIENCE)


async def told(bridge: Bridge) -> dict[str, Any]:
    status, body = await bridge.get("/status.json")
    assert status == 200
    assert SECRET not in body
    found: dict[str, Any] = json.loads(body)
    return found


async def takeovers(bridge: Bridge) -> bool:
    return bool((await told(bridge))["takeovers"]["hot"])


async def gaps(bridge: Bridge) -> bool:
    last = (await told(bridge))["gaps"]["last"]
    return bool(last) and all(gap["closed_ms"] for gap in last)


async def stuck(bridge: Bridge) -> bool:
    return bool((await told(bridge))["stuck"]["channels"])


async def stood_by(bridge: Bridge) -> bool:
    (shard,) = (await told(bridge))["shards"]
    return bool(shard["standbys"])


@pytest.mark.slow
async def test_the_page_shows_what_has_happened_in_every_size_and_scheme(
    redis_kind: type[RedisServer], tmp_path: Path
) -> None:
    async with (
        after_a_gap_a_stuck_subject_and_a_takeover(redis_kind) as (holder, standby),
        chromium(tmp_path) as browser,
    ):
        page = await browser.page()
        await page.show(f"http://127.0.0.1:{holder.http_port}/")
        await shown(page)

        text = await page.value("document.body.innerText")
        assert "Not ready: messages are stuck" in text
        assert "expired.0.{prefix}" in text
        assert "Takeover, hot" in text
        assert "recovered" in text
        assert "this bridge" in text
        assert "Values" not in text
        assert "Hash fields" not in text
        assert await page.value("told.window.published") >= 5
        assert f"{await page.value('told.window.published')} messages" in text
        assert SECRET not in await page.value("document.documentElement.outerHTML")
        for marks, events in (("rect", "gaps"), ("path", "takeovers")):
            drawn = await page.value(f"document.querySelectorAll('#line {marks}').length")
            assert drawn == await page.value(f"told.{events}.last.length") > 0
        assert await page.value("document.querySelectorAll('button, input, form, select, textarea').length") == 0
        for size in (WIDE, TELEPHONE):
            for scheme in ("light", "dark"):
                await page.resize(*size, scheme)
                await page.value("(show(), 0)")
                assert await page.value("document.documentElement.scrollWidth") <= size[0]
                assert await page.value(CONTRAST) == []
                await page.picture(tmp_path / f"{size[0]}-{scheme}.png")

        await page.show(f"http://127.0.0.1:{standby.http_port}/")
        await shown(page)
        text = await page.value("document.body.innerText")
        assert "Standing by: another bridge is at work" in text
        await page.picture(tmp_path / "standby.png")
        assert page.faults == []

        standby.kill()
        await page.value("ask()")
        assert "The bridge does not answer." in await page.value("document.body.innerText")


async def test_the_page_shows_values_and_fields_by_their_numbers_where_they_are_asked_for(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    require(Redis8Server)
    settings = {"BRIDGE_VALUES": f"{SECRET}*", "BRIDGE_VALUES_LEAD": "1000", "BRIDGE_VALUES_MAX_BYTES": "1000"}
    settings |= {"BRIDGE_NATS_URL": nats_server.url, "BRIDGE_FIELDS": f"{SECRET}*"}
    with Redis8Server() as server:
        async with (
            user_of(server) as user,
            Bridge({**settings, "BRIDGE_REDIS_URL": server.url}) as bridge,
            chromium(tmp_path) as browser,
        ):
            await bridge.ready()
            await user.set(f"{SECRET}:1", SECRET, px=100_000)
            await user.set(f"{SECRET}:2", 2 * 1000 * "x", px=500)
            await user.hset(f"{SECRET}:h", mapping={SECRET: "", "b": ""})
            await user.execute_command("HPEXPIRE", f"{SECRET}:h", 500, "FIELDS", 1, SECRET)  # type: ignore[no-untyped-call]
            await user.execute_command("HPEXPIRE", f"{SECRET}:h", 300_000, "FIELDS", 1, "b")  # type: ignore[no-untyped-call]

            async def all_is_told() -> bool:
                status = await told(bridge)
                claimed = status["fields"]["claimed"].values()
                return (status["values"]["published"]["too_large"], status["values"]["held"], sum(claimed)) == (1, 1, 1)

            await wait_until(all_is_told, bridge.log, PATIENCE)
            page = await browser.page()
            await page.show(f"http://127.0.0.1:{bridge.http_port}/")
            await shown(page)
            text = await page.value("document.body.innerText")
            assert "with the outbox, of 256 MiB" in text
            assert "1 too large" in text
            assert "1 hash\nnext deadline in" in text
            assert "Not known" in text
            assert SECRET not in await page.value("document.documentElement.outerHTML")
            doubt = "told.values.doubt = 'the user may not'"
            full = "told.values.bytes = told.values.limit_bytes; told.values.published.outbox_full = 3"
            await page.value(f"({doubt}, 0)")
            await page.value(f"({full.replace(';', ',')}, told.fields.excluded = 2, show(), 0)")
            for size in (WIDE, TELEPHONE):
                for scheme in ("light", "dark"):
                    await page.resize(*size, scheme)
                    await page.value("(show(), 0)")
                    assert await page.value("document.documentElement.scrollWidth") <= size[0]
                    assert await page.value(CONTRAST) == []
                    await page.picture(tmp_path / f"values-{size[0]}-{scheme}.png")
            assert "Not read, or not proven: the user may not" in await page.value("document.body.innerText")
            assert page.faults == []


async def shown(page: Page) -> None:
    async def is_shown() -> bool:
        return await page.value("typeof told !== 'undefined' && told !== null") is True

    await wait_until(is_shown, "the figures on the page", PATIENCE)
