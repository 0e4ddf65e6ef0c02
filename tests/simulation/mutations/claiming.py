"""Rules of hints, claims, gaps, epochs and delivery."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import (
    ACQUIRE,
    APPLY,
    DELIVERY,
    ENTRIES,
    EPOCH,
    FENCE,
    INTERPRETER,
    OUTBOX,
    OWN_IDS,
    SEQUENCE,
    SHARD,
    Substitution,
)

RULES: Mapping[str, Sequence[Substitution]] = {
    "resolve_is_of_the_entry": (
        (APPLY, "if score ~= tonumber(was) or ahead[key] then return end", "if not score then return end"),
        (INTERPRETER, "        elif not self.marks.is_ahead(key):\n", "        else:\n"),
    ),
    "resolve_leaves_to_hint": (
        (
            APPLY,
            "    follow(key, deadline)\n  end -- seen alive and gone now",
            "    follow(key, deadline)\n  else\n    write(key, false)\n  end -- seen alive and gone now",
        ),
    ),
    "ahead_keeps_from_expired": (
        (
            INTERPRETER,
            "                marks.hold(key)\n",
            "                self._claim(op.expired(key), operations)\n",
        ),
    ),
    "ahead_keeps_from_deleted": (
        (
            INTERPRETER,
            "                marks.hold(key)\n",
            "                marks.hold(key)\n            else:\n                operations += op.gone(key)\n",
        ),
        (APPLY, "announced\n  if ahead[key] then return end\n", "announced\n"),
    ),
    "unchanged_is_ahead": (
        (APPLY, "    ahead[key] = true --", "    if scores[key] ~= deadline then ahead[key] = true end --"),
    ),
    "sequence_numbers": (
        (SEQUENCE, "  if (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n", ""),
        OWN_IDS,
    ),
    "ids_of_their_own": (
        (
            ENTRIES,
            "identity.of_entry(key, entry_id, index)",
            'identity.of_entry(key, b"%d" % observed_ms, 0)',
        ),
    ),
    "walk": ((EPOCH, "Walk(needed=gap.open)", "Walk(needed=False)"),),
    "count_ambiguous": (
        (
            APPLY,
            "    if score < gap_start then ambiguous = ambiguous + 1 end\n    write(key, false)",
            "    write(key, false)",
        ),
        (APPLY, "    if score and score < gap_start then ambiguous = ambiguous + 1 end\n", ""),
        (APPLY, "    if score < gap_start and deadline ~= score then ambiguous = ambiguous + 1 end\n", ""),
    ),
    "count_gone": (
        (
            APPLY,
            "    elseif gap_start > 0 then\n      ambiguous = ambiguous + 1 -- deleted in the gap",
            "    elseif false then\n      ambiguous = ambiguous + 1 -- deleted in the gap",
        ),
    ),
    "counts_outlive_epochs": (
        (
            ACQUIRE,
            "'fence', new_fence, 'seq', '0',",
            "'fence', new_fence, 'seq', '0', 'ambiguous', '0', 'recovered', '0',",
        ),
    ),
    "gap_starts_subscribed": (
        (
            SHARD,
            "        self._ears = ears = await listen(",
            "        self._start_ms = await self.ledger.now_ms()\n        self._ears = ears = await listen(",
        ),
        (SHARD, "        start_ms = await self.ledger.now_ms()\n", "        start_ms = self._start_ms\n"),
    ),
    "seen_when_closed": (
        (
            EPOCH,
            "        if not self._gap.open and (self._audit is None or finished.purpose.audit):\n",
            "        self._handled_ms = finished.redis_ms\n        if not self._gap.open:\n",
        ),
    ),
    "fence": (
        (FENCE, "  if fields[1] ~= fence then return", "  if false then return"),
        (
            SEQUENCE,
            "  if (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n",
            (
                "  local own = redis.call('HGET', lease, 'fence') == fence\n"
                "  if own and (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n"
            ),
        ),
        OWN_IDS,
    ),
    "fence_per_epoch": (
        (
            ACQUIRE,
            "local new_fence, new_end",
            "if holder == instance and old_fence then fence = old_fence end\nlocal new_fence, new_end",
        ),
        OWN_IDS,
    ),
    "outbox_until_settled": (
        (
            OUTBOX,
            "        self._cursor = START\n        self.ours = True\n",
            "        self._late = self._cursor != START\n        self.ours = True\n",
        ),
        (
            OUTBOX,
            "                return entries\n",
            (
                '                if getattr(self, "_late", False):\n                    self._late = False\n'
                "                    continue\n                return entries\n"
            ),
        ),
    ),
    "settle_when_acked": (
        (
            DELIVERY,
            "        backoff = Backoff()\n        while True:\n            session = await self.link.session()\n",
            (
                "        backoff = Backoff()\n        early = flight.batch()\n"
                "        flight.acked(range(len(early.messages)))\n"
                "        while True:\n            session = await self.link.session()\n"
            ),
        ),
        (
            DELIVERY,
            "                await session.publish(flight.batch(), flight)\n",
            (
                "                ignore = lambda *_: None\n"
                '                names = ("acked", "refused", "rejected")\n'
                '                deaf = type("Deaf", (), dict.fromkeys(names, ignore))()\n'
                "                await session.publish(early, deaf)\n"
            ),
        ),
    ),
}
