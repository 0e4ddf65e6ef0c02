"""Which primaries a cluster has, which slots each has, and which ledger (`slots.py`).

All primaries are asked in parallel, each for a second at most; if none is known, or none answers, the nodes of the URL
are asked. `cluster_nodes.py` makes one view of the answers. A frozen node does not delay a look. A missing answer
proves nothing.

A slot that is on its way from one node to another has no ledger: its scripts would find some of their keys here, and
some there.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.errors import NotConnected, Refused
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.slots import Numbering, slot_of
from bridge.redis.wire.cluster_nodes import Node, View, claims, merged
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Address, Endpoint
from bridge.redis.wire.questions import Questions

Look = Callable[[], Callable[[AbstractSet[str]], None]]
"""Called before a look at the cluster; what it returns is called after it, with the nodes that have slots."""


class Topology:
    """See the module. Nothing is known before the first `refresh`."""

    def __init__(self, endpoint: Endpoint, look: Look = lambda: lambda _: None) -> None:
        """`endpoint`: see `Endpoint.of`; no node is known yet.

        `look` is called before each look at the cluster. What it returns is called with the result, if there is one.
        """
        settings = endpoint.settings
        self.endpoint = endpoint
        self.names = Names(settings.namespace, endpoint.db)
        self.primaries: Mapping[int, Node] = {}
        """By the number of the ledger."""
        self._numbering = Numbering(self.names)
        self._clock = endpoint.clock
        self._limits = endpoint.limits
        self._seeds: Sequence[Address] = settings.redis_address().nodes
        self._clients: dict[Address, Redis] = {}
        self._views: dict[Address, View] = {}
        """What each node said last. The word of a silent node still counts, unless another node has a newer one."""
        self._moving: dict[str, frozenset[int]] = {}
        """By node, what it last said about slots that are leaving it or arriving."""
        self._on_their_way: frozenset[int] = frozenset()
        self._owners: dict[int, Node] = {}
        self._number_of: dict[str, int] = {}
        self.news = asyncio.Event()
        """Set at the next change. Each change has its own event: take it before you look at the state."""
        self._doubted = asyncio.Event()
        self._look = look
        self._questions = Questions(self._ask_one, self._clock, self._limits.grace)

    def client(self, address: Address) -> Redis:
        """A client of a node, for a command now and then."""
        if address not in self._clients:
            self._clients[address] = self.endpoint.at(address).client(self._limits.node_connections)
        return self._clients[address]

    def owner(self, key: bytes) -> Node | None:
        """The primary on which a key lies."""
        return self._owners.get(slot_of(key))

    def number_of(self, key: bytes) -> int | None:
        """The number of the ledger on the primary on which a key lies."""
        node = self.owner(key)
        return None if node is None else self._number_of.get(node.id)

    @property
    def busy(self) -> bool:
        """Whether any slot is on its way from one node to another."""
        return bool(self._on_their_way)

    def moving(self, key: bytes) -> bool:
        """Whether the slot of the key is on its way from one node to another."""
        return slot_of(key) in self._on_their_way

    def away(self, number: int, key: bytes) -> bool:
        """Whether the key is on another primary than the one that has the ledger of that number."""
        owner, here = self.owner(key), self.primaries.get(number)
        return owner is not None and here is not None and owner.id != here.id

    async def hand_over(self, number: int, entries: Sequence[tuple[bytes, int]]) -> None:
        """Let another ledger's node place entries of keys that it has. Raises NotConnected or Refused."""
        node = self.primaries.get(number)
        if node is None:
            raise NotConnected(f"no primary of the cluster has ledger {number} now")
        async with conversation(self.endpoint.at(node.address), self._limits.topology):
            await self.client(node.address).zadd(self.names.of(number).moved, dict(entries), nx=True)

    async def watch(self) -> None:
        """Look at the cluster again and again, even if no node answers."""
        while True:
            await self._clock.sleep(self._limits.topology_doubt)
            await self._clock.wait(self._doubted, self._limits.topology - self._limits.topology_doubt)
            self._doubted.clear()
            try:
                await self.refresh()
            except (NotConnected, Refused):
                continue  # the shards report what is wrong

    def doubt(self) -> None:
        """Something failed that should work: look again soon."""
        self._doubted.set()

    async def refresh(self) -> None:
        """Look at the cluster. Raises NotConnected or Refused if no node answers; then everything is as it was."""
        found = self._look()
        answers = await self._ask()
        views = self._views | answers
        if views != self._views and self._learn(views, answers):
            named = {node.address for node in self.primaries.values()} | {*self._seeds}
            self._views = {address: view for address, view in views.items() if address in named}
            for address in self._clients.keys() - named:
                if client := self._clients.pop(address, None):
                    await client.aclose()
        found({str(node) for node in self.primaries.values()})

    async def close(self) -> None:
        """Give the connections back."""
        await self._questions.close()
        for client in self._clients.values():
            await client.aclose()

    async def _ask(self) -> dict[Address, View]:
        known = {node.address: None for node in self.primaries.values()}
        errors: list[NotConnected | Refused] = []
        for addresses in (known, {address: None for address in self._seeds if address not in known}):
            replies = await self._questions.ask(addresses)
            errors += (reply for reply in replies.values() if isinstance(reply, NotConnected | Refused))
            if views := {address: reply for address, reply in replies.items() if isinstance(reply, tuple)}:
                return views
        for error in errors:
            if isinstance(error, Refused):
                raise error
        raise NotConnected(f"no node of the cluster answers: {'; '.join(map(str, errors))}")

    async def _ask_one(self, address: Address) -> View | NotConnected | Refused:
        node = self.endpoint.at(address)
        try:
            async with conversation(node, self._limits.topology):
                try:
                    reply = await self.client(address).execute_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]
                except ResponseError as error:
                    if "cluster support disabled" in str(error):
                        return _no_cluster(node)
                    raise
        except (NotConnected, Refused) as error:
            return error
        return tuple(claims(reply.decode(), address, tls=self.endpoint.tls))

    def _learn(self, views: Mapping[Address, View], answers: Mapping[Address, View]) -> bool:
        """`answers`: the views that were received now.

        Returns False if no node knows any slot: nothing is learned from a node that was reset.
        """
        stale = [view for address, view in views.items() if address not in answers]
        nodes = merged([*answers.values()], stale)
        if not nodes:
            return False
        all_claims = [claim for view in views.values() for claim in view]
        there = {node.id for node in nodes}  # the node that has a slot says whether it is on its way
        self._moving |= {claim.id: claim.moving for claim in all_claims if claim.own}
        self._moving = {id_: moving for id_, moving in self._moving.items() if id_ in there}
        moving = frozenset[int]().union(*self._moving.values())
        self._owners = {slot: node for node in nodes for slot in node.slots}
        self._on_their_way = moving
        stable = {node.id: node.slots - moving for node in nodes}
        by_id = {node.id: node for node in nodes}
        self.primaries = {number: by_id[id_] for number, id_ in self._numbering.of(stable).items()}
        self._number_of = {node.id: number for number, node in self.primaries.items()}
        self.news.set()
        self.news = asyncio.Event()
        return True


def _no_cluster(node: Endpoint) -> Refused:
    return Refused(f"{node.title} is no node of a cluster", f"set BRIDGE_REDIS_URL to redis{'s' * node.tls}://{node}")


class LedgerFinder:
    """Finds the primary that has a ledger: see `primary.Finder`."""

    def __init__(self, topology: Topology, number: int) -> None:
        self._topology = topology
        self._number = number

    async def primary(self) -> Address:
        """Where it is. Raises NotConnected or Refused."""
        if self._number not in self._topology.primaries:
            await self._topology.refresh()
        node = self._topology.primaries.get(self._number)
        if node is None:
            raise NotConnected(f"no primary of the cluster has ledger {self._number} now")
        return node.address

    async def news(self, seconds: float) -> None:
        """See `primary.Finder`."""
        await self._topology.endpoint.clock.wait(self._topology.news, seconds)

    async def close(self) -> None:
        """The topology has the connections."""
