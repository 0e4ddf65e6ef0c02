"""Rules of the hot standby: how an epoch goes on where a former one was."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import (
    ACQUIRE,
    APPLY,
    INTERPRETER,
    MARKS,
    RELEASE,
    RELIEF,
    SHARD,
    STANDBY,
    TAKEOVER,
    TOUCH,
    Substitution,
)

RULES: Mapping[str, Sequence[Substitution]] = {
    "who_listened_goes_first": ((ACQUIRE, "if not is_known then return false end", "do return false end"),),
    "the_heir_goes_first": ((ACQUIRE, "if hot == '' and heir_until and heir ~= instance", "if false"),),
    "not_taken_is_given_up": ((ACQUIRE, "if holder == instance then -- the", "if false then -- the"),),
    "announced_marks_follow": ((TAKEOVER, "if announcement is not None or key != awaited:", "if False:"),),
    "standby_drops_handled": (
        (TAKEOVER, "_expired(inheritance.place.hints, inbox, kinds)", "_expired(0, inbox, kinds)"),
    ),
    "standby_knows_ahead": (
        (
            TAKEOVER,
            "    for announcement in inheritance.announcements:\n        marks.",
            "    for announcement in ():\n        marks.",
        ),
    ),
    "standby_holds_what_was_held": (
        (TAKEOVER, "if marks.is_ahead(key) and _knew(inheritance, key, number):", "if False:"),
    ),
    "standby_holds_no_more": (
        (TAKEOVER, "if marks.is_ahead(key) and _knew(inheritance, key, number):", "if marks.is_ahead(key):"),
    ),
    "standby_ignores_former_marks": (
        (
            MARKS,
            "            raise MarkLostError(_OVERTAKEN)\n        self._release()\n\n    def _release",
            (
                "            raise MarkLostError(_OVERTAKEN)\n        self._release()\n"
                "        if self.round is not None:\n"
                "            self.round.resolving.extend(self.round.pending.items())\n"
                "            self.round.pending.clear()\n\n    def _release"
            ),
        ),
    ),
    "claims_store_place": ((APPLY, "'heard', heard, 'place', place,", "'heard', heard,"),),
    "claims_store_heard": ((APPLY, "'seq', seq, 'heard', heard,", "'seq', seq,"),),
    "sweep_stores_place": ((TOUCH, "'heard', heard, 'place', place, 'open', open)", "'heard', heard, 'open', open)"),),
    "release_stores_place": (
        (RELEASE, "'heard', heard, 'place', place, 'left', left)", "'heard', heard, 'left', left)"),
    ),
    "cold_drops_to_the_boundary": (
        (STANDBY, "        if inheritance is None:\n            inbox.drop_before(lease.boundary)\n", ""),
    ),
    "released_in_one_batch": (
        (
            INTERPRETER,
            "while marks.released or (count < limits.batch_keys and size < most_bytes and looked < limits.look_hints):",
            "while count < limits.batch_keys and size < most_bytes and looked < limits.look_hints:",
        ),
    ),
    "mute_is_cold": (
        (
            SHARD,
            "        if error.ending in UNTRUSTWORTHY:\n            await self._tenure.distrust(self.ledger)\n",
            "",
        ),
    ),
    "open_gap_is_closed": ((SHARD, "if inherits and not lease.gap_open:", "if inherits:"),),
    "relief_hears_the_place": ((RELIEF, "            await self._caught_up(ears, ledger)\n", ""),),
    "boundary_before_canaries": (
        (INTERPRETER, "if key == self._canary.key and self._boundary is None:", "if key == self._canary.key:"),
    ),
}
