"""What happens again and again is one line an interval, and none of it is lost from the count."""

from structlog.testing import capture_logs

from bridge.clock import SystemClock
from bridge.telemetry.events import Telemetry


class HandClock(SystemClock):
    """Goes on only by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_thousand_rejections_are_one_line_and_then_one_with_the_count() -> None:
    clock = HandClock()
    telemetry = Telemetry(clock)
    with capture_logs() as lines:
        for _ in range(1000):
            telemetry.messages_rejected(["too large", "too large"])
        assert [line["count"] for line in lines] == [2]
        clock.now += 10
        telemetry.messages_rejected(["too large"])
    assert [line["count"] for line in lines] == [2, 1999]
    assert telemetry.metrics.registry.get_sample_value("bridge_rejected_messages_total") == 2001
