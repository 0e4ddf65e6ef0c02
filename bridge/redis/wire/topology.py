"""Which primaries a cluster has, what lies on each, and which ledger it has (`slots.py`).

All primaries are asked side by side, each for a second at most, and the nodes of the URL where none is known or none
answers. They need not agree: whoever claims a slot in the newest configuration epoch has it, so that what a primary
says that is cut off, and was replaced, counts no more. Nothing is concluded from no answer.

A slot that is on its way from one node to another has no ledger: its scripts would find some of their keys here, and
some there.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.clock import Clock
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.redis.protocol.migrated_keys import Claimed
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.slots import SLOTS, Numbering, slot_of
from bridge.redis.protocol.watermarks import Seen
from bridge.redis.wire.endpoint import Endpoint, conversation
from bridge.settings import Settings
from bridge.tasks import happens

POLL_INTERVAL = 1.0
"""Seconds between looks at the cluster."""
DOUBT_PAUSE = 0.1
"""Seconds between them, at least, when somebody doubts what the last one said."""
ASK_TIMEOUT = 1.0
"""Seconds that a node may take to answer, the connection included."""
CONNECTIONS = 8
"""To one node: polls, signs of life, and what several ledgers hand over."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A primary, as one node describes it."""

    id: str
    address: Address
    epoch: int
    """Of its configuration: of two that claim a slot, the greater one has it."""
    slots: tuple[range, ...]
    moving: frozenset[int]
    """Slots that are on their way from here, or to here. Only the node itself says so."""
    own: bool
    """Whether the node says it of itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """A primary with slots."""

    id: str
    address: Address
    slots: frozenset[int]

    def __str__(self) -> str:
        return "{}:{}".format(*self.address)


View = tuple[Claim, ...]
"""What one node says."""


class Topology:
    """See the module. Nothing is known before the first `refresh`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.endpoint = Endpoint.of(settings)
        self.names = Names(settings.namespace, self.endpoint.db)
        self.primaries: Mapping[int, Node] = {}
        """By the number of the ledger."""
        self._numbering = Numbering(self.names)
        self._clock = clock
        self._seeds: Sequence[Address] = settings.redis_address().nodes
        self._clients: dict[Address, Redis] = {}
        self._views: dict[Address, View] = {}
        """What each node said last. One that does not answer now was right about what is not newer elsewhere."""
        self._moving: dict[str, frozenset[int]] = {}
        """By node, what it last said of slots that are on their way from or to it."""
        self._on_their_way: frozenset[int] = frozenset()
        self._owners: dict[int, Node] = {}
        self._number_of: dict[str, int] = {}
        self.news = asyncio.Event()
        """Set at the next change. Each change has its own: take it before you look at what there is."""
        self._doubted = asyncio.Event()
        self.claimed = Claimed()
        self.seen = Seen()
        """Up to when the notifications of each were handled."""

    def at(self, address: Address) -> Endpoint:
        """A node of the cluster."""
        host, port = address
        return replace(self.endpoint, host=host, port=port)

    def client(self, address: Address) -> Redis:
        """A client of a node, for a command now and then."""
        if address not in self._clients:
            self._clients[address] = self.at(address).client(CONNECTIONS)
        return self._clients[address]

    def owner(self, key: bytes) -> Node | None:
        """The primary on which a key lies."""
        return self._owners.get(slot_of(key))

    def number_of(self, key: bytes) -> int | None:
        """The number of the ledger on the primary on which a key lies."""
        node = self.owner(key)
        return None if node is None else self._number_of.get(node.id)

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
        async with conversation(self.at(node.address), ASK_TIMEOUT):
            await self.client(node.address).zadd(self.names.of(number).moved, dict(entries), nx=True)

    async def watch(self) -> None:
        """Look at the cluster again and again. That nobody answers ends nothing."""
        while True:
            await self._clock.sleep(DOUBT_PAUSE)
            await happens(self._doubted, POLL_INTERVAL)
            self._doubted.clear()
            try:
                await self.refresh()
            except (NotConnected, Refused):
                continue  # the shards tell what is wrong

    def doubt(self) -> None:
        """Something did not work where it should: look again soon."""
        self._doubted.set()

    async def refresh(self) -> None:
        """Look at the cluster. Raises NotConnected or Refused where no node answers; then all is as it was."""
        asked_ms = self.seen.now_ms
        answers = await self._ask()
        views = self._views | answers
        if views != self._views and self._learn(views, answers):
            named = {node.address for node in self.primaries.values()} | {*self._seeds}
            self._views = {address: view for address, view in views.items() if address in named}
            for address in self._clients.keys() - named:
                if client := self._clients.pop(address, None):
                    await client.aclose()
        self.seen.looked({str(node) for node in self.primaries.values()}, asked_ms)

    async def close(self) -> None:
        """Give the connections back."""
        for client in self._clients.values():
            await client.aclose()

    async def _ask(self) -> dict[Address, View]:
        known = {node.address: None for node in self.primaries.values()}
        errors: list[BridgeError] = []
        for addresses in (known, {address: None for address in self._seeds if address not in known}):
            replies = await asyncio.gather(*(self._ask_one(address) for address in addresses))
            errors += (reply for reply in replies if isinstance(reply, BridgeError))
            answers = zip(addresses, replies, strict=True)
            if views := {address: reply for address, reply in answers if not isinstance(reply, BridgeError)}:
                return views
        for error in errors:
            if isinstance(error, Refused):
                raise error
        raise NotConnected(f"no node of the cluster answers: {'; '.join(map(str, errors))}")

    async def _ask_one(self, address: Address) -> View | BridgeError:
        try:
            async with conversation(self.at(address), ASK_TIMEOUT):
                try:
                    reply = await self.client(address).execute_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]
                except ResponseError as error:
                    if "cluster support disabled" in str(error):
                        return _no_cluster(self.at(address))
                    raise
        except (NotConnected, Refused) as error:
            return error
        return tuple(claims(reply.decode(), address, tls=self.endpoint.tls))

    def _learn(self, views: Mapping[Address, View], answers: Mapping[Address, View]) -> bool:
        """`answers`: those of them that were given now.

        False where nobody knows of any slot: of a node that was reset, nothing is learned.
        """
        stale = [view for address, view in views.items() if address not in answers]
        nodes = merged([*answers.values()], stale)
        if not nodes:
            return False
        all_claims = [claim for view in views.values() for claim in view]
        there = {node.id for node in nodes}  # who has a slot says whether it is on its way
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


def merged(views: Sequence[View], stale: Sequence[View] = ()) -> Sequence[Node]:
    """The primaries that have slots, by what several nodes say, or (`stale`) said last, and do not say now.

    Of two that claim a slot, the newer configuration has it; of two places of one node, the fresher word is right.
    """
    fresh = {claim for view in views for claim in view}
    all_claims = fresh.union(*stale)
    owners: dict[int, Claim] = {}
    for claim in sorted(all_claims, key=lambda claim: (claim.epoch, claim in fresh, claim.own, claim.id)):
        for slots in claim.slots:
            owners.update(dict.fromkeys(slots, claim))
    slots_of: dict[str, set[int]] = {}
    addresses: dict[str, Address] = {}
    for slot, claim in owners.items():
        slots_of.setdefault(claim.id, set()).add(slot)
        addresses[claim.id] = claim.address
    return [Node(id_, addresses[id_], frozenset(slots)) for id_, slots in sorted(slots_of.items())]


_ADDRESS = re.compile(r"(?P<host>.*):(?P<port>\d+)(?:@\d*)?(?:,(?P<name>[^,=]*))?(?:,.*)?")


def claims(text: str, asked: Address, *, tls: bool = False) -> Iterator[Claim]:
    """The primaries in an answer to CLUSTER NODES; `asked`: where, for a node that does not know its own address."""
    for line in text.splitlines():
        id_, where, flags, _, _, _, epoch, _, *slots = line.split(" ")
        found = _ADDRESS.fullmatch(where)
        kinds = set(flags.split(","))
        if found is None or "master" not in kinds or kinds & {"noaddr", "handshake"}:
            continue
        own = "myself" in kinds
        # A certificate is of a name. Without TLS, the address needs no resolver.
        host = (tls and found["name"]) or found["host"] or asked[0]
        port = int(found["port"]) or asked[1]
        yield Claim(
            id_,
            (host, port),
            int(epoch),
            tuple(_range(words) for words in slots if not words.startswith("[")),
            frozenset(int(re.split("-[<>]-", words[1:])[0]) for words in slots if words.startswith("[")),
            own,
        )


def _range(words: str) -> range:
    first, _, last = words.partition("-")
    return range(int(first), min(int(last or first), SLOTS - 1) + 1)


class Place:
    """The primary that has a ledger: where `primary.py` looks for its server."""

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

    async def close(self) -> None:
        """The topology has the connections."""
