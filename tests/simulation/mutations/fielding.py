"""Rules of fields of hashes: which have expired, which may have, and what is read when."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import EPOCH_FIELDS, FIELD_HINTS, FIELDS, Substitution

RULES: Mapping[str, Sequence[Substitution]] = {
    "only_due_fields_expire": (
        (FIELDS, "if deadline <= late then gone[#gone + 1] = name else", "if true then gone[#gone + 1] = name else"),
    ),
    "gone_fields_wait_for_the_mark": (
        (FIELDS, "local waited, any_deleted = string.find(why, 'm', 1, true),", "local waited, any_deleted = true,"),
    ),
    "deletions_decide_about_fields": (
        (FIELDS, "elseif deleted[name] or waited and any_deleted then", "elseif deleted[name] then"),
    ),
    "hashes_take_their_fields_along": (
        (FIELD_HINTS, "    Kind.EXPIRED: KNOWN + DELETED,\n", "    Kind.EXPIRED: KNOWN,\n"),
        (FIELD_HINTS, "    Kind.GONE: KNOWN + DELETED,\n", "    Kind.GONE: KNOWN,\n"),
    ),
    "replaced_hashes_say_nothing": (
        (FIELDS, "local replaced = kind.ok ~= 'hash' and kind.ok ~= 'none'", "local replaced = false"),
    ),
    "waiting_hashes_keep_their_reasons": (
        (FIELD_HINTS, 'waiting[key] = former.get(key) or Reasons(b"")', 'waiting[key] = Reasons(b"")'),
    ),
    "waiting_hashes_gather_what_is_heard": (
        (FIELD_HINTS, "        mark = self._mark_of.get(key)\n", "        mark: bytes | None = None\n"),
        (FIELD_HINTS, "            del self._mark_of[key]\n", "            self._mark_of.pop(key, None)\n"),
    ),
    "fields_that_are_back_are_counted": (
        (FIELDS, "ambiguous.returned = ambiguous.returned + 1 -- it expired, or was postponed just before", ""),
    ),
    "fields_of_large_hashes_are_counted": (
        (FIELDS, "  ambiguous.large = ambiguous.large + call('ZCARD', index)\n", ""),
    ),
    "fields_leave_with_their_claims": (
        (FIELDS, "    if decided then removed[", "    if decided and not said then removed["),
    ),
    "hashes_that_are_not_read_wait": ((EPOCH_FIELDS, "        self._hints.give_back(hints[looked.handled :])\n", ""),),
    "all_hashes_are_gone_through": (
        (
            EPOCH_FIELDS,
            "            cursor, keys = await self._ledger.hashes(cursor, self._match)\n",
            "            keys = list[bytes]()\n",
        ),
    ),
}
