"""What a run goes on: where keys lie, and what is judged with what. Here: one Redis, with one ledger or several."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Self, TypeVar
from zlib import crc32

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as SilentError

from tests.chaos.book import Book
from tests.chaos.ground import Record, Upheaval
from tests.support.contract import LEDGER
from tests.support.deployments.scene import Scene, now_ms
from tests.support.deployments.telemetry import events
from tests.support.redis.commands import run
from tests.support.servers import PATIENCE, RedisServer, wait_until

S_co = TypeVar("S_co", bound=Scene, covariant=True)
Home = Callable[[str], RedisServer]
"""Where a key is."""

ONLY = "all"
"""The place of everything where there is one ledger."""
SHARDS = 4
AFTER_MS = 3_000
"""How long after a failover a former primary may be listened to, or what it has claimed be announced."""


class Topology(Generic[S_co]):
    """One Redis with one ledger."""

    silence = 30.0
    """Seconds until the writer gives up a command: more than Redis ever stands still."""
    ledgers: Sequence[str] = (LEDGER,)
    """Where a deadline may be recorded."""

    def __init__(self, scene: S_co) -> None:
        self.scene = scene
        self.book = Book(self.moved)
        self.still = asyncio.Lock()
        """The writer stands still while somebody else has it."""
        self.upheavals: list[Upheaval] = []
        self._clients: dict[RedisServer, Redis] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    # Where keys are written.

    def client(self, server: RedisServer) -> Redis:
        """A client that sends no command twice: else the book would not know."""
        if server not in self._clients:
            once = Retry(NoBackoff(), 0)
            self._clients[server] = Redis(
                port=server.port, decode_responses=True, protocol=2, retry=once, socket_timeout=self.silence
            )
        return self._clients[server]

    async def primaries(self) -> list[RedisServer]:
        """Those of now."""
        return [self.scene.redis_server]

    async def locate(self) -> Home:
        """Where keys are now; returns when somebody serves them."""
        (server,) = await self.primaries()

        async def serves() -> bool:
            try:
                return bool(await self.client(server).ping())
            except (LostError, SilentError):
                return False

        await wait_until(serves, "a Redis that serves", 2 * PATIENCE)
        return lambda _: server

    # What is judged with what.

    def moved(self, key: str) -> bool:
        """Whether the key was, or may have been, carried from one node to another."""
        return False

    def place(self, key: str) -> str | None:
        """Where it expires; None if that has changed."""
        return ONLY

    def places(self, gap: Record) -> Collection[str]:
        """Where something may have been missed in that gap."""
        return [ONLY]

    @contextmanager
    def upheaval(self, *places: str) -> Iterator[None]:
        """Meanwhile, the primary there, or everywhere, becomes another one, or gets another ledger."""
        begun = now_ms()
        yield
        self.upheavals.append(Upheaval(frozenset(places), begun, now_ms() + AFTER_MS))

    def logs(self) -> str:
        """What the bridges say, for the reader of a failure."""
        return "\n".join(bridge.log() for bridge in self.scene.bridges)

    async def state(self) -> dict[str, "LedgerState"]:
        """What lies where ledgers do, by their names."""
        found = dict[str, LedgerState]()
        for server in await self.primaries():
            client = self.client(server)
            for lease in await run(client, "KEYS", "{expiry-bridge:0:*}:lease"):
                found[lease] = await LedgerState.of(client, lease.removesuffix("lease"))
        return found


class LedgerState:
    """What matters of it when nothing goes on any more."""

    fence: str
    seen_ms: int
    waiting: int
    """In the ledger, though overdue; in the outbox; or to be placed."""
    forsaken: bool
    """Whether no bridge has it, or has ever been ready with it: what one leaves that was frozen while slots moved."""

    @classmethod
    async def of(cls, client: Redis, prefix: str) -> Self:
        """Ask for it."""
        state = cls()
        lease = await client.hgetall(f"{prefix}lease")
        state.fence, state.seen_ms = str(lease.get("fence", "")), int(lease.get("seen_ms") or 0)
        state.forsaken = not state.seen_ms and int(lease.get("until") or 0) < now_ms()
        overdue = await client.zcount(f"{prefix}deadlines", "-inf", now_ms() - 1_000)
        outbox = await client.xlen(f"{prefix}outbox")
        state.waiting = int(lease.get("depth") or 0) + overdue + outbox + await client.zcard(f"{prefix}moved")
        return state


class Shards(Topology[Scene]):
    """One Redis with several ledgers."""

    ledgers = tuple(f"{{expiry-bridge:0:{shard}}}:deadlines" for shard in range(SHARDS))

    def place(self, key: str) -> str:
        """See `Topology`."""
        return str(crc32(key.encode()) % SHARDS)

    def places(self, gap: Record) -> Collection[str]:
        """See `Topology`. The record does not tell, but the log of who has opened the gap does."""
        opened = [line for bridge in self.scene.bridges for line in events(bridge, "gap.opened")]
        return {str(line["shard"]) for line in opened if line["opened_ms"] == gap["opened_ms"]}
