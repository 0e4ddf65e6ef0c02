"""The case beside peers, in small: who keeps what expires while nobody listens, and who does not."""

from functools import partial
from typing import Final

import pytest

from tests.bench.cases import peers as cases
from tests.bench.cases.peers import Load, Peers, crashed, judged
from tests.bench.peers import peers
from tests.bench.stage import KEY
from tests.support.servers import PATIENCE, NatsServer, RedisServer, require

LOAD: Final = Load(rate=100, seconds=4.0)
CLEAN_UP_SECONDS: Final = 3.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loses"),
    [("bridge", False), ("psubscribe, publish", True), ("phantom keys", True), ("sorted set, polled", False)],
)
async def test_what_expires_while_nobody_listens(name: str, *, loses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    require(RedisServer)
    require(NatsServer)
    if not loses:  # it is done when all are there, however late the machine starts it again
        monkeypatch.setattr(cases, "QUIET_SECONDS", PATIENCE)
    peer = next(one for one in peers(CLEAN_UP_SECONDS) if one.name == name)
    figures = await crashed(peer, LOAD)
    assert (figures["lost"] > 0) is loses
    assert figures["lost"] < LOAD.count
    assert figures["twice"] == 0


def test_the_first_message_of_a_key_is_judged_and_each_further_one_counted() -> None:
    load, begin_ms = Load(rate=1, seconds=4.0), 1_000_000
    at = partial(load.deadline_ms, begin_ms=begin_ms)
    delivered = [
        (KEY % 0, at(0) + 5.0),
        (KEY % 1, at(1) + 50.0),
        (KEY % 1, at(1) + 20_000.0),
        (KEY % 2, at(2) + 20_000.0),
    ]
    figures = judged(delivered, load, begin_ms)
    assert (figures["events"], figures["lost"], figures["twice"]) == (4, 1, 1)
    assert [figures[f"delay_{index}"] for index in range(5)] == [1, 1, 0, 0, 1]
    assert figures["late_p99_ms"] == 20_000.0


def test_what_is_announced_before_its_deadline_is_no_expiration() -> None:
    load, begin_ms = Load(rate=1, seconds=1.0), 1_000_000
    with pytest.raises(RuntimeError, match="before its deadline"):
        judged([(KEY % 0, begin_ms - 50.0)], load, begin_ms)


def test_what_is_lost_and_how_late_the_rest_is_stand_in_one_chart_and_one_table() -> None:
    case, names = Peers(), [peer.name for peer in peers()]
    load, begin_ms = Load(rate=1, seconds=4.0), 1_000_000
    delivered = [(KEY % number, load.deadline_ms(number, begin_ms) + 5.0) for number in range(3)]
    one = {**judged(delivered, load, begin_ms), "bridge_cpu_us": 1.0, "client_cpu_us": 1.0, "redis_cpu_us": 1.0}
    medians = {name: {**one, "control_p99_ms": 1.0, "missed": 0.0} for name in names}
    (chart,) = case.charts(medians)
    assert [(bar.label, bar.parts, bar.said) for bar in chart.bars] == [
        (name, {"≤ 10 ms": 75.0, "lost": 25.0}, "25% lost") for name in names
    ]
    head, *rows = case.table(medians)
    assert [row[:2] for row in rows] == [[name, "1 of 4"] for name in names]
    assert {len(row) for row in rows} == {len(head)}
    assert not all(verdict.reached for verdict in case.judge(medians))
