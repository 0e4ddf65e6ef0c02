"""The proof of fields: while all is well, one that expires is announced on time; one that is taken back is not, nor
counted.
"""  # noqa: D205 - one paragraph

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.broker import Stored
from tests.simulation.field_validators import (
    an_expiration_of_a_hash_field_is_announced_once_or_counted as is_announced,
)
from tests.simulation.field_validators import (
    no_expiration_of_a_hash_field_is_announced_that_is_known_to_be_none as is_true,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

LATER_MS = 200
"""How much longer the fields live than the keys of the proof."""
ENDS, REMOVED, AGAIN, LATER = (b"user:%b" % name for name in (b"ends", b"removed", b"again", b"later"))


class FieldProof:
    """One hash, and what becomes of its fields; nothing where no fields have deadlines."""

    def __init__(self, world: "World", name: str, ttl: int) -> None:
        """`ttl`: in ms."""
        self._world = world
        self._key = b"user:hproof:%b" % name.encode()
        self._deadline = world.server.keyspace.now_ms + ttl + LATER_MS
        self._counted = self._counts
        fields = (ENDS, REMOVED, AGAIN, LATER)
        self._user("HSET", *(word for field in (*fields, b"user:kept") for word in (field, b"v")))
        self._user("HPEXPIREAT", self._deadline, "FIELDS", len(fields), *fields)

    def _user(self, name: str, *words: bytes | str | int) -> None:
        if self._world.plan.fielding is not None:
            self._world.server.user(name, self._key, *words)

    @property
    def _counts(self) -> int:
        return 0 if self._world.book.fields is None else self._world.book.fields.counted

    def take_back(self) -> None:
        """All but one, well before their deadline."""
        self._user("HDEL", REMOVED)
        self._user("HSET", AGAIN, "anew")
        self._user("HPEXPIREAT", self._deadline + 3_600_000, "FIELDS", 1, LATER)

    def judge(self, stored: Sequence[Stored], latest: float, offset: float, *, calm: bool) -> None:
        """Violates what does not hold. `latest`: seconds from the deadline on. `calm`: nothing has ended meanwhile."""
        if self._world.plan.fielding is None:
            return
        said: dict[str, list[tuple[float, str]]] = {}
        for message in stored:
            if message.key == self._key and "field" in (data := json.loads(message.body)["data"]):
                said.setdefault(data["field"], []).append((offset + message.at, data["via"]))
        announced = said.pop(ENDS.decode(), [])
        late = [at for at, _ in announced if at > self._deadline / 1000 + latest]
        if not announced or late or (calm and announced[0][1] != "notification"):
            self._world.violate(is_announced.__name__, f"{self._key!r} of {self._deadline}: {announced}")
        if calm and said:
            self._world.violate(is_true.__name__, f"{self._key!r} of {self._deadline}: {said}")
        if calm and self._counts > self._counted:
            self._world.violate(is_announced.__name__, f"counted, though all is known: {self._counts - self._counted}")
