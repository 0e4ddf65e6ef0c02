"""Fixtures of the tests of the ledger protocol."""

from tests.support.harness.fixtures import bridge, proxy, server, soon, user

__all__ = ["bridge", "proxy", "server", "soon", "user"]
