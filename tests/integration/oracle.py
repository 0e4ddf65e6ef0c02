"""`expiry-bridge verify --json` as a process, and the deployment that it verifies."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from redis.asyncio import Redis

from bridge.commands.verify.plan import PREFIX
from tests.support.servers import Bridge, wait_until

SUBJECT = f"expired.0.{PREFIX}"
QUICK = ("--keys", "200", "--rate", "400", "--ttl-min", "300ms", "--ttl-max", "1s")
LONG = ("--keys", "40", "--rate", "400", "--ttl-min", "3s", "--ttl-max", "5s")
"""Time enough to do something before the keys expire. With two controls: one is deleted, so 41 keys are there."""
HASTY = ("--patience", "0s")
PATIENCE = 60.0

Found = Mapping[str, Any]


class Verification(Bridge):
    """A process of `expiry-bridge verify --json`."""

    def __init__(self, settings: Mapping[str, str], *flags: str) -> None:
        super().__init__(settings, "verify", "--json", *flags)

    async def found(self, status: int) -> Found:
        """What it printed; it must end with that status."""
        ended = await self.exited(PATIENCE)
        assert ended == status, self.log()
        answer: Found = json.loads(self.output())
        assert answer["not_cleaned_up"] == 0
        return answer


class World:
    """A Redis, where the bridge finds it and its broker, and what is in them."""

    def __init__(self, settings: Mapping[str, str], user: Redis) -> None:
        self.settings = settings
        self.user = user

    def bridge(self) -> Bridge:
        return Bridge(self.settings)

    async def verified(self, *flags: str, status: int = 0, **settings: str) -> Found:
        """What a verification finds from its beginning to its end."""
        async with self.verification(*flags, **settings) as verification:
            return await verification.found(status)

    @asynccontextmanager
    async def verification(self, *flags: str, **settings: str) -> AsyncIterator[Verification]:
        """One that runs; at the end of the block, no key of its may be left."""
        changed = {f"BRIDGE_{name.upper()}": value for name, value in settings.items()}
        with Verification({**self.settings, **changed}, *flags) as verification:
            yield verification
        assert await self.keys() == []

    async def keys(self) -> list[bytes]:
        """Those of all verifications that are there."""
        return sorted([key async for key in self.user.scan_iter(match=f"{PREFIX}:*")])

    async def planted(self, count: int) -> list[bytes]:
        """Return when there are so many."""
        found: list[bytes] = []

        async def are_there() -> bool:
            found[:] = await self.keys()
            return len(found) >= count

        await wait_until(are_there, lambda: f"{count} keys, there are {found}")
        return found


async def deadline_of(user: Redis, key: bytes) -> int:
    """Unix milliseconds on Redis's clock; negative where there is none."""
    return int(await user.execute_command("PEXPIRETIME", key))  # type: ignore[no-untyped-call]


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[Client]:
    client = await nats.connect(world.settings["BRIDGE_NATS_URL"])
    try:
        yield client
    finally:
        await client.close()


async def no_bridge_any_more(world: World) -> None:
    """A bridge has run, so that there is a stream; now there is none."""
    async with world.bridge() as bridge:
        await bridge.ready()
        assert await bridge.stop() == 0
