"""All servers that hold a part of what the bridge knows: mostly one, with a cluster its primaries. For the commands.

Guarantees: that one primary of a cluster does not answer hides none of the others. What is told of several of them is
not of one moment, and each tells its times by its own clock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bridge.errors import NotConnected, Refused, Unusable
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.ledger_state import Expirations, LedgerState, read_expirations, read_state
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.server import Server
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a look at one server has shown."""

    endpoint: str
    number: int
    """Of its ledger, in a cluster."""
    server: Server | None
    state: LedgerState
    expirations: Expirations


class Nodes:
    """Those of `settings`. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topology = Topology(Endpoint.of(settings)) if settings.redis_address().nodes else None
        self._inspectors: dict[int, Inspector] = {} if self.topology else {0: Inspector(settings)}

    async def close(self) -> None:
        """Give the connections back."""
        for inspector in self._inspectors.values():
            await inspector.close()
        if self.topology is not None:
            await self.topology.close()

    async def find(self) -> Mapping[str, Inspector]:
        """Each of them by its name, by the numbers of their ledgers: of a cluster, those that are primaries now."""
        if self.topology is None:
            return {str(inspector.endpoint): inspector for inspector in self._inspectors.values()}
        await self.topology.refresh()
        primaries = self.topology.primaries
        for number in self._inspectors.keys() - primaries.keys():
            await self._inspectors.pop(number).close()
        for number in primaries.keys() - self._inspectors.keys():
            self._inspectors[number] = Inspector(self.settings, self.topology, number)
        return {str(node): self._inspectors[number] for number, node in sorted(primaries.items())}

    @property
    def known(self) -> Collection[Inspector]:
        """Those that `find` has found."""
        return self._inspectors.values()

    def of(self, key: bytes) -> Inspector:
        """The one that has the key, as far as is known."""
        number = 0 if self.topology is None else self.topology.number_of(key)
        inspector = None if number is None else self._inspectors.get(number)
        if inspector is None:
            raise NotConnected("which primary of the cluster has the slot of a key is not known now")
        return inspector

    async def look(self, limit: int) -> tuple[Sequence[NodeState], Mapping[str, str]]:
        """The bridge's keys on each, with `limit` expirations of each kind; and why others do not tell, by their names.

        Raises what the only one does not tell for, or all of them.
        """

        async def seen(inspector: Inspector) -> NodeState:
            await inspector.locate()
            server, state, some = (
                await inspector.server(),
                await read_state(inspector),
                await read_expirations(inspector, limit),
            )
            return NodeState(str(inspector.endpoint), inspector.names.shard, server, state, some)

        found, errors = await ask(await self.find(), seen)
        if not found:
            raise next(iter(errors.values()), NotConnected("no primary of the cluster has any slots"))
        return list(found.values()), {name: str(error) for name, error in errors.items()}


async def ask(
    inspectors: Mapping[str, Inspector], question: Callable[[Inspector], Awaitable[Answer]]
) -> tuple[dict[str, Answer], dict[str, Unusable]]:
    """Ask all of them side by side. The answers; and the errors of those that do not answer."""

    async def one(inspector: Inspector) -> Answer | Unusable:
        try:
            return await question(inspector)
        except (NotConnected, Refused) as error:
            return error

    replies = await asyncio.gather(*(one(inspector) for inspector in inspectors.values()))
    found, errors = dict[str, Answer](), dict[str, Unusable]()
    for name, reply in zip(inspectors, replies, strict=True):
        if isinstance(reply, Unusable):
            errors[name] = reply
        else:
            found[name] = reply
    return found, errors
