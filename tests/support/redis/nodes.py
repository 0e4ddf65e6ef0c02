"""The nodes of a Redis Cluster: started, made one cluster, and asked what they know of it.

`cluster.py` is what tests use.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from bridge.commands.embedded import free_port
from tests.support.proxy import Proxy
from tests.support.redis.commands import run
from tests.support.redis.view import Member, members
from tests.support.servers import PATIENCE, RedisServer, start, wait_until

SLOTS = 16_384
NODE_TIMEOUT_MS = 1500
HANDSHAKE_SECONDS = 2 * NODE_TIMEOUT_MS / 1000
"""Nodes that have not met in that time have forgotten it."""
ANSWER_SECONDS = 1.0
"""A node that is silent for so long is taken for frozen, and another one is asked."""

COMMON = {"cluster-enabled": "yes", "repl-diskless-sync-delay": "0", "repl-timeout": "5"}
PARTING = {
    "protected-mode": "no",
    "user": "replica on nopass ~* &* +@all",
    "masteruser": "replica",
    "masterauth": "any",
}
"""So that a primary can be cut off from its replicas: their user is switched off."""


class Nodes:
    """The nodes, and what they know."""

    def __init__(
        self, stack: AsyncExitStack, kind: type[RedisServer], config: Mapping[str, str], *, parting: bool
    ) -> None:
        self.nodes: list[RedisServer] = []
        """All of them, replicas included; those that were removed are not."""
        self._stack = stack
        self._kind = kind
        self._config = {
            **COMMON,
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            **(PARTING if parting else {}),
            **config,
        }
        self._parting = parting
        self._clients: dict[RedisServer, Redis] = {}
        self._ids: dict[RedisServer, str] = {}
        self._doors: dict[RedisServer, int] = {}
        """The ports at which the others find them, on the cluster's bus."""
        self._links: dict[RedisServer, Proxy] = {}
        """Before the bus of each node, if they are to be cut off from each other."""
        self._cut: set[RedisServer] = set()
        self._spokesman: RedisServer | None = None
        """The node that answered the last time: it will the next time, too."""

    async def _start(self) -> RedisServer:
        """One more node, that nobody knows yet."""
        bus = door = free_port()
        config = {"cluster-port": str(bus)}
        if self._parting:
            link = await self._stack.enter_async_context(Proxy(bus))
            door = link.port
            config |= {
                "cluster-announce-ip": "127.0.0.1",
                "cluster-announce-bus-port": str(door),
                "bind-source-addr": f"127.0.0.{2 + len(self._links)}",
            }
        node = self._kind({**self._config, **config})
        self.nodes.append(node)
        if self._parting:
            self._links[node] = link
        self._doors[node] = door
        self._stack.callback(node.close)
        once = Retry(NoBackoff(), 1)  # the connection may be one to a process that was killed
        # No timeout of the client's own: on Python 3.11 it can swallow the cancellation by a timeout of ours.
        client = Redis(port=node.port, decode_responses=True, protocol=2, socket_timeout=None, retry=once)
        self._clients[node] = await self._stack.enter_async_context(client)
        await start(node)
        self._ids[node] = await self.ask(node, "CLUSTER", "MYID")
        return node

    async def _form(self, primaries: int) -> None:
        first, *others = self.nodes
        for number, node in enumerate(self.nodes[:primaries]):
            begin, end = SLOTS * number // primaries, SLOTS * (number + 1) // primaries - 1
            await self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await self.ask(node, "CLUSTER", "ADDSLOTSRANGE", begin, end)
        async with asyncio.TaskGroup() as meetings:
            for node in others:
                meetings.create_task(self._meet(node, first))
        for number, node in enumerate(self.nodes[primaries:]):
            await self._replicate(node, self.nodes[number % primaries])
        await self.settled()

    async def _meet(self, node: RedisServer, other: RedisServer) -> None:
        """Return when they know each other. A busy machine may take too long for that: then they try again."""
        loop, tried = asyncio.get_running_loop(), 0.0

        async def have_met() -> bool:
            nonlocal tried
            if other in (await self.view(node) or ()) and node in (await self.view(other) or ()):
                return True
            if loop.time() - tried > HANDSHAKE_SECONDS:
                await self.ask(node, "CLUSTER", "MEET", "127.0.0.1", other.port, self._doors[other])
                tried = loop.time()
            return False

        await wait_until(have_met, lambda: f"a handshake\n{node.log()}", PATIENCE)

    async def _replicate(self, node: RedisServer, primary: RedisServer) -> None:
        """Return when the node, which needs to have heard of the primary, is its replica."""

        async def is_replica() -> bool:
            try:
                await self.ask(node, "CLUSTER", "REPLICATE", self._ids[primary])
            except ResponseError:  # it does not know it yet
                return False
            return True

        await wait_until(is_replica, lambda: f"a replica\n{node.log()}", PATIENCE)

    # What it looks like.

    @property
    def url(self) -> str:
        """As in BRIDGE_REDIS_URL."""
        return self.url_of(*self.nodes)

    def url_of(self, *nodes: RedisServer) -> str:
        """The same with these nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"

    async def ask(self, node: RedisServer, *command: str | int) -> Any:  # noqa: ANN401 - whatever it answers
        """The answer of a node to any command."""
        return await run(self._clients[node], *command)

    async def view(self, node: RedisServer) -> dict[RedisServer, Member] | None:
        """What a node says of those that it knows; None while it does not answer."""
        if not node.running:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                lines = await self.ask(node, "CLUSTER", "NODES")
        except (RedisError, OSError):
            return None
        by_id = {id_: node for node, id_ in self._ids.items()}
        return {by_id[member.id]: member for member in members(lines) if member.id in by_id}

    async def _seen(self) -> dict[RedisServer, Member]:
        """What a node says that runs, is not frozen, and not cut off."""
        candidates = [node for node in self.nodes if node not in self._cut]
        for node in sorted(candidates, key=lambda node: node is not self._spokesman):
            if (seen := await self.view(node)) is not None:
                self._spokesman = node
                return seen
        raise RuntimeError("no node of the cluster answers")

    async def primaries(self) -> list[RedisServer]:
        """Those that serve slots, by their first one."""
        seen = await self._seen()
        serving = [node for node, member in seen.items() if member.serves]
        return sorted(serving, key=lambda node: seen[node].slots[0].start)

    async def owner(self, key: str | bytes) -> RedisServer:
        """The primary that the key belongs to."""
        return (await self.owners())(key)

    async def owners(self) -> Callable[[str | bytes], RedisServer]:
        """The same of many keys, as it is now."""
        by_slot = await self._owners()

        def owner_of(key: str | bytes) -> RedisServer:
            return by_slot[slot_of(key)]

        return owner_of

    async def owner_of_slot(self, slot: int) -> RedisServer:
        """The primary that serves the slot."""
        return (await self._owners())[slot]

    async def _owners(self) -> dict[int, RedisServer]:
        """By slot; in a failover, when all have one again."""
        owners = dict[int, RedisServer]()

        async def are_served() -> bool:
            for node, member in (await self._seen()).items():
                owners.update({slot: node for part in member.slots for slot in part if member.serves})
            return len(owners) == SLOTS

        await wait_until(are_served, "a primary for every slot", PATIENCE)
        return owners

    async def slots(self, node: RedisServer) -> list[int]:
        """Those that it serves."""
        return [slot for part in (await self._seen())[node].slots for slot in part]

    async def number(self, node: RedisServer) -> int:
        """The smallest one that, with the bridge's namespace, is a hash tag of a slot which is there to stay."""
        view = await self.view(node)
        assert view is not None, "it does not answer"
        return next(number for number in count() if view[node].keeps(slot_of(f"{{expiry-bridge:0:{number}}}")))

    async def ledger_slot(self, node: RedisServer) -> int:
        """The slot of the names of its ledger's keys."""
        return slot_of(f"{{expiry-bridge:0:{await self.number(node)}}}")

    async def replicas(self, primary: RedisServer) -> list[RedisServer]:
        """Of a primary, which may be dead."""
        seen = await self._seen()
        return [node for node, member in seen.items() if member.primary == self._ids[primary]]

    async def replication(self, node: RedisServer) -> dict[str, Any]:
        """What a node says of its replication."""
        return dict(await self._clients[node].info("replication"))

    async def settled(self) -> None:
        """Return when all nodes that answer, and are not cut off, agree; they serve, and replicas are in step."""
        why: object = None

        async def is_settled() -> bool:
            nonlocal why
            views = [view for node in self.nodes if node not in self._cut and (view := await self.view(node))]
            agreed = {frozenset((node, member.agreed) for node, member in view.items()) for view in views}
            why = agreed
            if len(agreed) != 1 or any(len(view) != len(self.nodes) for view in views):
                return False
            for node in [node for node in views[0] if node not in self._cut and not views[0][node].lost]:
                why = state = await self._clients[node].cluster("INFO")
                if state["cluster_state"] != "ok":
                    return False
                why = replication = await self.replication(node)
                if replication.get("master_link_status", "up") != "up":
                    return False
            return True

        await wait_until(is_settled, lambda: f"a settled cluster: {why}", PATIENCE)

    async def promoted(self, node: RedisServer) -> None:
        """Return when it serves slots: for itself, and for a node that others can ask, and all slots are served."""

        async def is_promoted() -> bool:
            own = await self.view(node)
            if own is None or not own[node].serves or node not in await self.primaries():
                return False
            return bool((await self._clients[node].cluster("INFO"))["cluster_state"] == "ok")

        await wait_until(is_promoted, lambda: f"the promotion\n{node.log()}", PATIENCE)


def slot_of(key: str | bytes) -> int:
    """The hash slot of a key."""
    return key_slot(key.encode() if isinstance(key, str) else key)
