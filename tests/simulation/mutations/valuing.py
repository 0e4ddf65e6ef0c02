"""Rules of values: which one is announced, and when it is called exact."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import (
    CAPTURE,
    CAPTURES,
    HELD_VALUES,
    Substitution,
)

RULES: Mapping[str, Sequence[Substitution]] = {
    "written_is_not_proven": (
        (
            CAPTURES,
            "        if held is not None and held.size:\n            self._again_please(key, held)\n",
            "        pass\n",
        ),
    ),
    "only_a_capture_proves": (
        (
            CAPTURES,
            "            if sizes[index] == UNREAD:\n                del self._held[key]\n",
            "            if sizes[index] == UNREAD:\n                held.proven = tracked\n",
        ),
    ),
    "captured_of_that_deadline": (
        (
            CAPTURE,
            "tonumber(entries[n]) == tonumber(deadline) and deadline_of(key) == tonumber(deadline) then",
            "tonumber(entries[n]) == tonumber(deadline) and deadline_of(key) > 0 then",
        ),
    ),
    "held_is_of_its_entry": (
        (HELD_VALUES, "    redis.call('HDEL', values, unpack(keys,", "    redis.call('HMGET', values, unpack(keys,"),
        (HELD_VALUES, "      if text and string.sub(text, 1, #prefix) == prefix then\n", "      if text then\n"),
    ),
}
