"""Limits: relations that correctness needs are checked, and scaling keeps them."""

from dataclasses import fields, is_dataclass, replace

import pytest

from bridge.limits import EpochLimits, Limits, SourceLimits, WireLimits
from bridge.limits.scaled import Scaled


def test_the_limits_of_the_service_hold_together() -> None:
    Limits()


@pytest.mark.parametrize("factor", [0.05, 0.2, 3.0])
def test_scaling_all_times_keeps_every_relation_and_every_bound(factor: float) -> None:
    scaled = Limits().scaled(factor)

    assert scaled.wire.command == Limits().wire.command * factor
    assert scaled.ledger.lease_ms == int(Limits().ledger.lease_ms * factor)
    assert scaled.close == Limits().close * factor
    assert scaled.epoch.batch_keys == Limits().epoch.batch_keys


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"wire": WireLimits(handshake=6.0)}, "wire.handshake < wire.command"),
        ({"source": SourceLimits(life_ms=6_000)}, "source.life_ms < ledger.lease_ms"),
        ({"epoch": EpochLimits(heartbeat=2.0)}, "epoch.heartbeat * 3 <= ledger.lease_ms"),
        ({"epoch": EpochLimits(found_keys=501)}, "epoch.found_keys <= epoch.batch_keys"),
    ],
)
def test_a_relation_that_does_not_hold_is_named(change: dict[str, Scaled], named: str) -> None:
    with pytest.raises(ValueError, match="limits that cannot work") as raised:
        replace(Limits(), **change)  # type: ignore[arg-type]
    assert named in str(raised.value)


def test_every_time_is_scaled_and_no_count_is() -> None:
    """A time that is forgotten would make a scaled run wait, or break a relation."""
    for part in (getattr(Limits(), one.name) for one in fields(Limits())):
        if is_dataclass(part):
            for one in fields(part):
                value = getattr(part, one.name)
                is_time = isinstance(value, float) or one.name.endswith("_ms")
                assert bool(one.metadata.get("time")) is is_time, one.name
