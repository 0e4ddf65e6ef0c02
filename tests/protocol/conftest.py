"""Fixtures of the tests of the ledger protocol."""

from tests.support.harness.fixtures import bridge, limits, proxy, server, user

__all__ = ["bridge", "limits", "proxy", "server", "user"]
