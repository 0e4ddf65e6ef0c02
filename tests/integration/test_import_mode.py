"""Valkey's import mode hides what is past its deadline, and expires nothing: no such key has expired."""

from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from tests.integration.doctor import SOUND, examine
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.published import key_of
from tests.support.harness.user import known, passed
from tests.support.redis.commands import run, user_of
from tests.support.servers import RedisServer, ValkeyServer, require

LONG_MS = 60_000


@pytest.fixture
def valkey() -> Iterator[RedisServer]:
    """A Valkey in which nothing is to be fixed."""
    kind: type[RedisServer] = ValkeyServer
    require(kind)
    with kind(SOUND) as server:
        yield server


@pytest.fixture
async def importer(valkey: RedisServer) -> AsyncIterator[Redis]:
    """Who imports: it sees what is hidden from the others."""
    async with user_of(valkey) as user:
        yield user


@pytest.mark.parametrize("recorded", [True, False])
async def test_what_import_mode_hides_is_not_announced_until_it_has_expired(
    valkey: RedisServer,
    importer: Redis,
    recorded: bool,  # noqa: FBT001 - a parameter
) -> None:
    """`recorded`: whether the keys were there before the import began."""
    keys = [b"k%d" % number for number in range(40)]
    async with Inside(valkey.port, limits=SOON) as bridge:
        await bridge.reconciled()
        if not recorded:
            await run(importer, "CONFIG", "SET", "import-mode", "yes")
        deadline = 0
        for key in keys:
            deadline = await known(importer, key, 400)
        if recorded:
            await run(importer, "CONFIG", "SET", "import-mode", "yes")
        await passed(importer, deadline)
        await bridge.ended()
        assert "import mode" in bridge.telemetry.endings[0]

        await run(importer, "CLIENT", "IMPORT-SOURCE", "ON")
        for key in keys[:20]:
            assert await importer.pexpire(key, LONG_MS) == 1
        assert bridge.published == []

        await run(importer, "CONFIG", "SET", "import-mode", "no")
        await bridge.reconciled(2)
        await bridge.told(20)
        assert {key_of(event) for event in bridge.published} == set(keys[20:])
        assert "import mode" in (await bridge.records(2))[1]["cause"]


def test_import_mode_is_found_by_check(valkey: RedisServer) -> None:
    with SyncRedis(port=valkey.port) as importer:
        importer.config_set("import-mode", "yes")
        rows = examine(1, redis_url=valkey.url, sink="stdout")
        assert rows["Redis/import mode"]["level"] == "fail"
        importer.config_set("import-mode", "no")
    assert "Redis/import mode" not in examine(0, redis_url=valkey.url, sink="stdout")
