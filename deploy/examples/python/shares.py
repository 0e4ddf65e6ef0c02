"""What the examples do about an expiration: a shared link has ended, so revoke it. Once, whatever comes twice.

The ids of handled messages lie beside the data that they change, and both change in one transaction. So a consumer that
is killed anywhere handles a message again, or has handled it, but never half, and never twice.
"""

import json
import sqlite3
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS shares (key TEXT PRIMARY KEY, ends_ms INTEGER NOT NULL, revoked_by TEXT);
CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY);
"""


class Shares:
    """Shared links, and which message revoked them."""

    def __init__(self, database: str) -> None:
        """`database` is the path of a SQLite file."""
        self._database = sqlite3.connect(database)
        self._database.executescript(SCHEMA)

    def handle(self, body: bytes) -> None:
        """Do what a message (a CloudEvent in structured mode) asks for, unless that has been done."""
        event = json.loads(body)
        with self._database as transaction:
            new = transaction.execute("INSERT OR IGNORE INTO handled VALUES (?)", [event["id"]]).rowcount
            revoked = self._revoke(event) if new else []
        for key in revoked:
            print("revoked", key, "by", event["id"], flush=True)

    def _revoke(self, event: dict[str, Any]) -> list[str]:
        if event["type"] == "redis.key.expired":
            where, what = "key = ?", event["subject"]
        elif event["type"] == "redis.expiry.gap":
            # Some expirations may never be announced: look at what had to end by then.
            where, what = "ends_ms <= ?", event["data"]["closed_ms"]
        else:
            return []  # a test message of `expiry-bridge check --publish`
        rows = self._database.execute(
            f"UPDATE shares SET revoked_by = ? WHERE revoked_by IS NULL AND {where} RETURNING key",  # noqa: S608 - ours
            [event["id"], what],
        )
        return [key for (key,) in rows]
