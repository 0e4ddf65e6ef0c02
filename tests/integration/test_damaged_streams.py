"""What somebody else wrote into the bridge's streams holds up nothing, is not lost, and is shown for what it is."""

import asyncio
import json
from contextlib import closing
from itertools import islice
from typing import Any, cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridge.cli.main import main
from bridge.commands.dead import UNREADABLE
from bridge.errors import Refused
from bridge.limits import LedgerLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Argument, Settled
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.telemetry import logs
from tests.support.fuzz import NAMES as FIELDS
from tests.support.fuzz import VALUES
from tests.support.harness.inside import Inside
from tests.support.harness.published import keys
from tests.support.harness.user import NAMES, expired
from tests.support.redis.commands import set_for, user_of
from tests.support.servers import RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

DAMAGED: list[dict[bytes, bytes]] = [
    {b"note": b"hello"},
    {b"at": b"soon", b"claims": b"\x90"},
    {b"at": b"1", b"claims": b"\xc1\xff"},
    {b"at": b"1", b"claims": b"\x93\xa1k\xc2\xa1?"},
    {b"claims": b"\x90"},
    {b"gap": b"\x93\x01\x02\x03"},
    {b"at": b"1"},
]


async def test_what_is_damaged_in_the_outbox_is_put_aside_and_delivery_goes_on(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user:
        for number, fields in enumerate(DAMAGED, start=1):
            await user.xadd(NAMES.outbox, dict(fields.items()), id=f"1-{number}")
        async with Inside(redis_server.port) as bridge:
            await bridge.reconciled()
            await set_for(user, b"k", 1)
            await expired(user, b"k")
            await bridge.told(1)
            assert keys(bridge.published) == [b"k"]

            async def nothing_waits() -> bool:
                return await user.xlen(NAMES.outbox) == 0

            await wait_until(nothing_waits)
            await bridge.stop()  # nothing that cannot be settled is under way
        dead: Any = await user.xrange(NAMES.dead)
        assert [fields for _, fields in dead] == [
            {b"outbox entry": b"1-%d" % number, **fields} for number, fields in enumerate(DAMAGED, start=1)
        ]


async def test_of_a_huge_entry_its_first_fields_are_kept_also_at_maxmemory(redis_server: RedisServer) -> None:
    huge = {b"%d" % number: b"x" for number in range(10_000)}
    async with user_of(redis_server) as user:
        await user.xadd(NAMES.outbox, dict(huge.items()), id="1-1")
        await user.config_set("maxmemory", 1)
        try:
            async with Inside(redis_server.port) as bridge:
                await bridge.reconciled()

                async def nothing_waits() -> bool:
                    return await user.xlen(NAMES.outbox) == 0

                await wait_until(nothing_waits)
                await bridge.stop()
        finally:
            await user.config_set("maxmemory", 0)
        ((_, kept),) = cast("Any", await user.xrange(NAMES.dead))
        first = dict(islice(huge.items(), 500))
        assert kept == {b"outbox entry": b"1-1", **first, b"fields left out": b"9500"}


async def test_an_entry_stays_until_its_dead_letter_is_kept_and_is_settled_once(redis_server: RedisServer) -> None:
    chosen = Settings.model_validate({"redis_url": redis_server.url})
    with closing(Commands(Endpoint.of(chosen))) as commands:
        async with user_of(redis_server) as user:
            ledger = Ledger(commands, NAMES, LedgerLimits())
            await user.xadd(NAMES.outbox, {b"note": b"hello"}, id="1-1")
            await user.xadd(NAMES.outbox, {b"note": b"more"}, id="1-2")
            await user.hset(NAMES.lease, "depth", 3)
            settled: list[Argument] = [b"1-1", 2, 0, 2, 2, b"a", b"1", 4, b"b", b"2", b"c", b"3"]
            await user.set(NAMES.dead, b"no stream")
            with pytest.raises(Refused, match="WRONGTYPE"):
                await ledger.settle(settled)
            assert await user.xlen(NAMES.outbox) == 2
            await user.delete(NAMES.dead)
            assert await ledger.settle(settled) == Settled(1, 2)
            assert await ledger.settle(settled) == Settled(1, 2)
            dead: Any = await user.xrange(NAMES.dead)
            assert [fields for _, fields in dead] == [{b"a": b"1"}, {b"b": b"2", b"c": b"3"}]
            assert await ledger.settle([b"1-2", 1, 0, 0]) == Settled(0, 2)
            assert await user.xlen(NAMES.outbox) == 0


@pytest.mark.slow
@given(letters=st.lists(st.dictionaries(FIELDS, VALUES, min_size=1, max_size=12), min_size=1, max_size=20))
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_dead_letters_are_listed_shown_and_dropped(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    letters: list[dict[bytes, bytes]],
) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", redis_server.url)
    # The command runs in this process, whose logging is pytest's.
    monkeypatch.setattr(
        logs, "configure", lambda *_: structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    )

    async def plant() -> list[str]:
        async with user_of(redis_server) as user:
            await user.delete(NAMES.dead)
            ids: list[Any] = [await user.xadd(NAMES.dead, dict(fields.items())) for fields in letters]
        return [entry_id.decode() for entry_id in ids]

    def dead(*arguments: str) -> tuple[int, str, str]:
        status = main(["dead", *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    asyncio.run(plant())
    status, shown, said = dead("list", "--json", "--show-keys")
    listed = json.loads(shown)["dead_letters"]
    assert (status, said, len(listed)) == (0, "", len(letters))
    status, shown, said = dead("list", "--show-keys")
    assert (status, said) == (0, "")
    assert "\x1b" not in shown
    for one in listed[:3]:
        assert dead("show", one["id"])[::2] == (0, "")
        status, shown, _ = dead("show", one["id"], "--json")
        assert status == 0
        assert (json.loads(shown)["event"] is None) == (one["reason"] == UNREADABLE)
    dropped = list(dict.fromkeys(one["id"] for one in listed))
    status, shown, said = dead("drop", *dropped)
    assert (status, said) == (0, "")


@given(
    wanted=st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=20), min_size=1, max_size=5)
)
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("action", ["show", "retry", "drop"])
def test_any_id_that_is_not_there_is_one_clear_line(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    action: str,
    wanted: list[str],
) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", redis_server.url)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    status = main(["dead", action, "--", *(wanted[:1] if action == "show" else wanted)])
    shown = capsys.readouterr()
    assert (status, shown.out) == (1, "")
    (line,) = shown.err.splitlines()
    assert line.startswith("expiry-bridge: no dead letter has the id ")
    assert line.isprintable()
