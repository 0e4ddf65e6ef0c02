"""What seeds have found, and was mended: each mend taken out again, so that what it stands for goes on being tried."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import EPOCH, TELEMETRY, Substitution

MENDED: Mapping[str, Sequence[Substitution]] = {
    "ready_after_a_full_outbox": (
        (
            TELEMETRY,
            "        self._health.met(self._named(OUTBOX))  # the epoch looks anew, and says so where it is full\n",
            "",
        ),
    ),
    "seen_when_audited": ((EPOCH, " and (self._audit is None or finished.purpose.audit)", ""),),
}
