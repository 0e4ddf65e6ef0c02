"""Expiry bridge: Redis key expirations as durable broker messages. Start reading at `bridge/contracts.py`."""

__version__ = "0.2.0"
