"""Figures of a running bridge: quantiles from buckets, rates, and what is not a bridge's answer."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from bridge.commands.embedded import free_port
from bridge.commands.status import metrics as figures
from bridge.commands.status.command import WINDOW, _remember
from bridge.commands.status.metrics import Figures, Unanswered, ask
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from bridge.telemetry.http import serve_http
from bridge.telemetry.lag import Buckets, quantile

BUCKETS = [(0.001, 10.0), (0.01, 10.0), (0.1, 90.0), (1.0, 99.0), (inf, 100.0)]


@pytest.mark.parametrize(
    ("share", "lags", "lag"),
    [
        (0.5, [(1.0, 0.0), (inf, 0.0)], None),
        (0.5, [], None),
        (0.05, BUCKETS, 0.0005),
        (0.1, BUCKETS, 0.001),
        (0.5, BUCKETS, 0.055),
        (0.9, BUCKETS, 0.1),
        (0.99, BUCKETS, 1.0),
        (0.999, BUCKETS, 1.0),  # nobody knows more than that
        (0.5, [(1.0, 0.0), (inf, 7.0)], 1.0),
    ],
)
def test_a_quantile_is_as_near_as_the_buckets_tell(share: float, lags: Buckets, lag: float | None) -> None:
    assert quantile(share, lags) == (None if lag is None else pytest.approx(lag))


@asynccontextmanager
async def served(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """Something else that answers whatever it is asked; its port."""
    server, port = web.ServerRunner(web.Server(answer)), free_port()
    await server.setup()
    try:
        await web.TCPSite(server, "127.0.0.1", port).start()
        yield port
    finally:
        await server.cleanup()


@asynccontextmanager
async def bridge_told(telemetry: Telemetry) -> AsyncIterator[Settings]:
    """The HTTP port of a bridge with one shard, to which this happened."""
    telemetry.shard()
    settings = Settings(http_port=free_port(), http_host="0.0.0.0")  # noqa: S104 - to see it asked at 127.0.0.1
    async with serve_http(settings, telemetry):
        yield settings


async def test_what_a_bridge_tells_is_read_and_compared_with_what_it_told_before() -> None:
    telemetry = Telemetry()
    shard = telemetry.shard()
    telemetry.messages_published(2, [0.02, 0.02])
    async with bridge_told(telemetry) as settings:
        first = await ask(settings)
        telemetry.messages_published(30, [3.0] * 30)
        shard.batch_applied(5, 2, 0)
        telemetry.sink_connected()
        shard.mark_returned("node")
        second = await ask(settings)

    assert dict(first.unready) == {"subscription": "starting", "broker": "starting"}
    assert not second.unready
    assert second.url.startswith("http://127.0.0.1:")
    assert second.uptime is not None
    assert [second.follows(first), first.follows(second)] == [True, False]
    assert second.rate(figures.PUBLISHED, first) == pytest.approx(30 / (second.at - first.at))
    assert second.rate(figures.PUBLISHED, None) == pytest.approx(32 / second.uptime)
    assert (second.values[figures.CLAIMED], second.values[f"{figures.CLAIMED}.sweep"]) == (7, 2)
    assert quantile(0.01, second.lags) == pytest.approx(0.01 + 0.015 * 0.16)
    since = second.lags_since(first)
    assert since[-1][1] == 30
    assert 2.5 < (quantile(0.01, since) or 0) < 5


async def test_a_shard_that_another_bridge_has_changes_no_figure() -> None:
    telemetry = Telemetry()
    async with bridge_told(telemetry) as settings:
        shards = [telemetry.shard(number, 2) for number in (0, 1)]
        for number, shard in enumerate(shards):
            shard.lease_acquired(1, first=True)
            shard.gap_opened("start", 0, 1)
            shard.scan_started()
            shard.scan_progressed(10, 0.25 + number / 4)
        both = await ask(settings)
        shards[0].lease_left()
        one = await ask(settings)

    told = (figures.LEASE_HELD, figures.GAP_OPEN, figures.SCAN_PROGRESS)
    assert [both.values[name] for name in told] == [2, 2, 0.25]
    assert [one.values[name] for name in told] == [1, 1, 0.5]


async def test_another_process_at_the_same_address_does_not_follow() -> None:
    old, new = Telemetry(), Telemetry()
    old.messages_published(2, [])
    told: list[Figures] = []
    for telemetry in (old, new):
        async with bridge_told(telemetry) as settings:
            told.append(await ask(settings))

    assert not told[1].follows(told[0])
    window: deque[Figures] = deque(maxlen=WINDOW)
    assert _remember(window, told[0]) is None
    assert _remember(window, replace(told[0], at=told[0].at + 1)) is told[0]
    assert _remember(window, told[1]) is None  # there is nothing to compare it with
    assert list(window) == [told[1]]
    assert _remember(window, "it cannot be reached") is None
    assert not window


async def test_rates_and_lags_are_taken_over_a_window() -> None:
    async with bridge_told(Telemetry()) as settings:
        first = await ask(settings)
    looks = [replace(first, at=first.at + second) for second in range(2 * WINDOW)]
    window: deque[Figures] = deque(maxlen=WINDOW)

    earlier = [_remember(window, look) for look in looks]

    assert earlier == [None, *[looks[0]] * WINDOW, *looks[1:WINDOW]]


async def test_where_nobody_listens_there_is_a_reason() -> None:
    port = free_port()
    with pytest.raises(Unanswered, match=f"http://127.0.0.1:{port} cannot be reached from here"):
        await ask(Settings(http_port=port))
    with pytest.raises(Unanswered, match="BRIDGE_HTTP_PORT is 0"):
        await ask(Settings(http_port=0))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"not found"),
        (200, b"<html>\xff</html>"),
        (200, b"up 1\n"),
        (200, b'bridge_build_info{version="0"} 1\n'),
        (200, b'bridge_lag_seconds_bucket{le="nothing"} 1\n'),
        (200, b""),
    ],
)
async def test_what_is_no_answer_of_a_bridge_is_said_to_be_none(status: int, body: bytes) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body)

    async with served(answer) as port:
        with pytest.raises(Unanswered, match="not the bridge"):
            await ask(Settings(http_port=port))


async def test_a_readiness_that_is_not_the_bridges_is_no_answer_either() -> None:
    telemetry = Telemetry()
    telemetry.shard()
    metrics = generate_latest(telemetry.metrics.registry)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/readyz":
            return web.Response(text="[]")
        return web.Response(body=metrics)

    async with served(answer) as port:
        with pytest.raises(Unanswered, match="not the bridge"):
            await ask(Settings(http_port=port))


async def test_a_port_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PATIENCE", 0.05)

    async def answer(request: web.BaseRequest) -> web.Response:
        await hold.wait()
        return web.Response()

    hold = asyncio.Event()
    async with served(answer) as port:
        with pytest.raises(Unanswered, match="does not answer within"):
            await ask(Settings(http_port=port))
        hold.set()
