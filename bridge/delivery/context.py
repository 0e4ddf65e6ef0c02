"""What delivery needs of the process that it runs in."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.broker_state import BrokerState
from bridge.clock import Clock
from bridge.limits import DeliveryLimits
from bridge.telemetry.events import Telemetry
from bridge.telemetry.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Context:
    """Passed to each part of delivery."""

    clock: Clock
    limits: DeliveryLimits
    telemetry: Telemetry
    redis_ms: Callable[[], float]
    """Redis's clock now, Unix milliseconds: the lag is measured with it."""
    broker: BrokerState = field(default_factory=BrokerState)
    """Kept up to date by delivery."""
    tracer: Tracer | None = None
    """Set if traces are wanted."""
    stuck_seconds: float = 0.0
    """See `BRIDGE_STUCK_SECONDS`."""
    values: bool = False
    """Whether values are wanted, and so counted."""
