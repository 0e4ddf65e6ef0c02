"""Whether the bridge is ready, and if not, why: conditions by name, each with its reason while it is not met."""


class Health:
    """The conditions of readiness. A condition that was named once stays until it is met."""

    def __init__(self) -> None:
        self._unmet: dict[str, str] = {}

    def unmet(self, condition: str, reason: str) -> None:
        """`condition` is not met, for `reason`."""
        self._unmet[condition] = reason

    def met(self, condition: str) -> None:
        """`condition` is met."""
        self._unmet.pop(condition, None)

    @property
    def reasons(self) -> dict[str, str]:
        """Condition → reason, of those not met. Empty: ready."""
        return dict(self._unmet)
