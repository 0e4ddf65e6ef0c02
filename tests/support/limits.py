"""Limits under which tests wait less, and need no faster a machine.

What a test waits *for* is shorter: the periods after which the bridge looks, tries again, or does its rounds. What
guards against a machine, a server or a network that is slow stays as it is: the time for a reply, a connection, a
handshake, a mark, an ack. So a busy machine makes tests slower, and none of them fail.

A lease is both: a standby waits for its end, and it must outlast the pauses of a holder that lives. So it is a little
shorter, and heartbeats are much more frequent. A test that is about such a guard passes a shorter one of its own.
"""

from dataclasses import asdict, fields, replace
from typing import Any

from bridge.limits import (
    BacklogLimits,
    DeliveryLimits,
    EpochLimits,
    JetStreamLimits,
    KafkaLimits,
    LedgerLimits,
    Limits,
    SourceLimits,
    WireLimits,
)

QUICK = Limits(
    wire=WireLimits(flags_check=0.5, primary_check=0.25, topology=1.0),
    ledger=LedgerLimits(lease_ms=2_500, outbox_retry=0.1),
    epoch=EpochLimits(heartbeat=0.2, canary=0.4, audit=0.25, stray_search=1.0),
    backlog=BacklogLimits(fill=1.2),
    source=SourceLimits(
        resend=0.2,
        backoff_first=0.02,
        backoff_most=0.5,
        failover_pause=0.2,
        standby_poll=0.1,
        relief_check=0.1,
        relief_retry=0.2,
        share_check=0.1,
        sign_of_life=0.25,
        life_ms=2_000,
        exchange=0.2,
    ),
    delivery=DeliveryLimits(watch=0.2),
    jetstream=JetStreamLimits(ping=0.25, denied=0.4, unbound=0.5),
    kafka=KafkaLimits(probe=0.25, topic_missing=1.0, topic_recheck=3.0),
)
"""For every bridge of a test that is not about its own times."""


def written(limits: Limits) -> dict[str, Any]:
    """As JSON can hold them."""
    return asdict(limits)


def read(found: dict[str, Any]) -> Limits:
    """What `written` wrote."""
    groups = {one.name: getattr(Limits(), one.name) for one in fields(Limits)}
    return Limits(
        **{name: replace(groups[name], **value) if isinstance(value, dict) else value for name, value in found.items()}
    )
