"""Traps: they wait for a script of the bridge's, and let the worst happen to it then."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.moments import MOMENTS, Moments, records
from tests.simulation.network import Link
from tests.simulation.redis.server import Session
from tests.simulation.redis.values import Reply
from tests.simulation.streams import APPEND

if TYPE_CHECKING:
    from tests.simulation.faults import Nemesis
    from tests.simulation.world import World

APPLY = "apply.lua"
AT_A_MOMENT = 0.4
"""How many traps are for one: see `moments.py`."""
SCRIPTS = (APPLY, APPLY, APPLY, "touch.lua", "touch.lua", "acquire.lua", "settle.lua", "release.lua")
CAPTURE = "capture.lua"
HUSHED = "muted for a moment, then killed"
FIELDS = "fields.lua"
TRAPS = ("request lost", "late", "killed before", "reply lost", "all cut", "killed after", "frozen")


class Traps:
    """Those of one run."""

    def __init__(self, world: "World", nemesis: "Nemesis") -> None:
        self._world = world
        self._nemesis = nemesis
        self._laid: list[tuple[str, str]] = []
        """For which script, and what happens to it."""
        self._moments = Moments(world.book)
        self._flags = ""
        """Of notifications: those that are off for the script that runs."""

    def clear(self) -> None:
        """None is left."""
        self._laid.clear()

    def lay(self) -> None:
        """One more."""
        if self._nemesis.rng.random() < AT_A_MOMENT:
            self._laid.append((APPLY, self._nemesis.rng.choice(MOMENTS)))
            return
        scripts: Sequence[str] = SCRIPTS if self._world.broker.server is None else (*SCRIPTS, APPEND, APPEND)
        if self._world.plan.rewriting is not None:
            scripts = (*scripts, CAPTURE, CAPTURE)
        if self._world.plan.fielding is not None:
            scripts = (*scripts, FIELDS, FIELDS, FIELDS)
        self._laid.append((self._nemesis.rng.choice(scripts), self._nemesis.rng.choice(TRAPS)))

    def lay_hush(self) -> None:
        """One for a batch with which keys may become ahead: nothing that it changes is notified."""
        self._laid.append((APPLY, HUSHED))

    def before(self, script: str, session: Session, words: list[bytes]) -> bool:
        """A script is about to run. False: it does not, or not now."""
        act = self._sprung(script, ("request lost", "late", "killed before"))
        if act is None:
            keyspace = self._world.server.keyspace
            hushed = script == APPLY and records(words) and self._stands_by(session) and self._sprung(script, (HUSHED,))
            if hushed:
                self._flags, keyspace.flags = keyspace.flags, ""
            return True
        link = next((link for link in self._world.network.links if link.peer is session), None)
        self._nemesis.tell(f"{act}: {script} of {link and link.process and link.process.name}")
        if link is not None:
            link.up.closed = link.down.closed = True
            if act == "killed before":
                self._kill_owner(link)
            link.sever(server=False)
        if act == "late":
            self._world.rerun(session, words, self._nemesis.rng.choice([0.05, 0.5, 3, 8]) * self._nemesis.rng.random())
        return False

    def after(self, script: str, session: Session, reply: Reply, words: Sequence[bytes]) -> None:
        """A script has run, and its reply is not sent yet."""
        if self._flags:
            self._world.server.keyspace.flags, self._flags = self._flags, ""
            act: str | None = HUSHED
        else:
            act = self._sprung(script, ("reply lost", "reply lost", "all cut", "killed after", "frozen"))
        if script == APPLY and (moments := self._moments.of(words, reply)) and self._stands_by(session):
            act = self._sprung(script, tuple(moments)) or act
        if act is None:
            return
        link = next((link for link in self._world.network.links if link.peer is session), None)
        if link is None:
            return
        owner = link.process
        self._nemesis.tell(f"{act}: {script} of {owner and owner.name}")
        link.down.closed = act != "frozen"
        if act in {"killed after", HUSHED, *MOMENTS}:
            self._kill_owner(link)
        elif act == "all cut":
            for other in [other for other in self._world.network.links if other.process is owner]:
                other.sever()
        elif act == "frozen" and owner is not None and not owner.frozen:
            owner.freeze()
            self._nemesis.later(f"thaw {owner.name}", self._nemesis.rng.uniform(0.01, 9), owner.thaw)
        else:
            link.sever()

    def _sprung(self, script: str, acts: Sequence[str]) -> str | None:
        for trap in self._laid:
            if trap[0] == script and trap[1] in acts:
                self._laid.remove(trap)
                return trap[1]
        return None

    def _stands_by(self, session: Session) -> bool:
        """Whether another bridge listens."""
        links = self._world.network.links
        owner = next((link.process for link in links if link.peer is session), None)
        return any(isinstance(link.peer, Session) and link.peer.channels for link in links if link.process is not owner)

    def _kill_owner(self, link: Link) -> None:
        for bridge in self._world.bridges:
            if bridge.process is not None and bridge.process is link.process:
                bridge.kill()
                self._nemesis.later(f"start {bridge.name}", self._nemesis.rng.choice([0.01, 1, 6]), bridge.start)
