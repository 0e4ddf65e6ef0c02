"""What seeds have found, and was mended: each mend taken out again, so that what it stands for goes on being tried."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import EPOCH, FIELD_HINTS, HANDSHAKE, TELEMETRY, Substitution

MENDED: Mapping[str, Sequence[Substitution]] = {
    "ready_after_a_full_outbox": (
        (
            TELEMETRY,
            "        self._health.met(self._named(OUTBOX))  # the epoch looks anew, and says so where it is full\n",
            "",
        ),
    ),
    "reset_is_noticed": (
        (
            HANDSHAKE,
            "        if self._reader is not None and self._reader.exception() is not None:\n",
            "        if False:\n",
        ),
    ),
    "replacing_hashes_count_as_deletions": ((FIELD_HINTS, "    Kind.APPEARED: DELETED,", '    Kind.APPEARED: b"",'),),
    "seen_when_audited": ((EPOCH, " and (self._audit is None or finished.purpose.audit)", ""),),
}
