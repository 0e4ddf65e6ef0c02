"""Delivery: from the outbox to the sink, and what is acked out of the outbox."""

from bridge.delivery.loop import Delivery

__all__ = ["Delivery"]
