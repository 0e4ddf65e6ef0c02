"""At `maxmemory`, Redis refuses the user's writes; the bridge goes on, so that what expires makes room."""

import contextlib

from redis import Redis
from redis.exceptions import OutOfMemoryError

from tests.support.contract import LEASE, LEDGER
from tests.support.servers import Bridge, RedisServer, wait_until

FULL = {"maxmemory": "4mb", "maxmemory-policy": "noeviction"}


def fill(client: "Redis") -> None:
    """Write until Redis takes no more."""
    with contextlib.suppress(OutOfMemoryError):
        for size in (100_000, 1_000, 10):
            for number in range(100_000):
                try:
                    client.set(f"filler:{size}:{number}", b"x" * size)
                except OutOfMemoryError:
                    if size == 10:
                        raise
                    break


async def test_a_full_redis_is_bridged_from_the_start_to_the_end(redis_kind: type[RedisServer]) -> None:
    keys = [f"share:{number}" for number in range(200)]
    with redis_kind(FULL) as server, Redis(port=server.port) as client:
        for key in keys:
            client.set(key, "", ex=600)
        fill(client)

        async with Bridge({"BRIDGE_REDIS_URL": server.url, "BRIDGE_SINK": "stdout"}) as bridge:
            await bridge.ready()
            await wait_until(lambda: client.zcard(LEDGER) == len(keys), "the ledger")
            for key in keys:
                client.pexpire(key, 100)
            await wait_until(lambda: bridge.output().count('"subject":"share:') == len(keys), bridge.log)
            assert await bridge.stop() == 0

        assert client.hget(LEASE, "holder") == b""
