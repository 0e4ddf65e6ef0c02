"""`expiry-bridge check --json`, as the tests of its findings use it."""

import asyncio
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from bridge.cli.main import main
from bridge.telemetry import logs
from tests.support.brokers.kafka_rig import KafkaRig

SECRET = "s3cret-of-the-owner"
SOUND = {"notify-keyspace-events": "Egxe", "appendonly": "yes"}
"""The configuration of a Redis in which nothing is to be fixed."""

Rows = Mapping[str, Mapping[str, Any]]
"""`area/check` → row."""


def examine(status: int, *flags: str, **settings: str) -> Rows:
    """What `check` finds with these flags, and with these settings, as in `redis_url=…`.

    It must end with `status`, and show no secret.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(logs, "configure", lambda *_: None)  # the logging of this process is pytest's
        for name, value in settings.items():
            patch.setenv(f"BRIDGE_{name.upper()}", value)
        assert main(["check", "--json", *flags]) == status, out.getvalue()
    for secret in {SECRET, *(value for name, value in settings.items() if name.endswith("_password"))}:
        assert secret not in out.getvalue() + err.getvalue()
    answer = json.loads(out.getvalue())
    assert answer["ok"] is (status == 0)
    for row in answer["checks"]:
        assert (row["remedy"] is None) == (row["level"] == "pass"), row
    # Of several rows of one check, as of a cluster whose nodes differ, the first: it is the worst.
    return {f"{row['area']}/{row['check']}": row for row in reversed(answer["checks"])}


async def examine_kafka(rig: KafkaRig, status: int, redis_url: str, *flags: str, **settings: Any) -> Rows:  # noqa: ANN401 - of any field's type
    """What `check` finds at the rig's server with the rig's settings and these; see `examine`. None unsets one."""
    chosen = {name: value for name, value in {**rig.settings, **settings}.items() if value is not None}
    texts = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in chosen.items()}
    return await asyncio.to_thread(examine, status, *flags, redis_url=redis_url, sink="kafka", **texts)


def levels(rows: Rows) -> dict[str, str]:
    """`area/check` → level, of all that did not pass."""
    return {name: row["level"] for name, row in rows.items() if row["level"] != "pass"}
