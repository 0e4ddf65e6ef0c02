"""Traces: what a collector is sent where the environment asks for it, and nothing where it does not."""

import json
import os
import subprocess
import sys

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.collector import Collector
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import keys
from tests.support.deployments.stored import StoredExpiration
from tests.support.deployments.telemetry import events
from tests.support.servers import PATIENCE, ROOT, Bridge, RedisServer, wait_until

KEYS = 20


async def test_each_expiration_has_a_trace_from_its_deadline_to_the_ack_and_its_message_says_so() -> None:
    async with Collector.serving() as collector:
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        async with Deployment.of(RedisServer, settings=otel) as deployment:
            bridge = await deployment.ready_bridge(direct=True)
            await deployment.set(keys(KEYS))
            stored = {message.id: message for message in await deployment.delivered()}
            messages = {message.id: message.event for message in await deployment.arrived() or ()}
            await wait_until(lambda: len(collector.spans) == 3 * KEYS, bridge.log)
            assert await bridge.stop(PATIENCE) == 0
            assert events(bridge, "tracing.started")
        assert collector.services == {"expiry-bridge"}
        by_trace: dict[str, dict[str, Span]] = {}
        for span in collector.spans:
            by_trace.setdefault(span.trace_id.hex(), {})[span.name] = span
        assert by_trace.keys() == stored.keys(), "the trace of an expiration has its id"
        for id_, spans in by_trace.items():
            is_from_the_deadline_to_the_ack(spans, stored[id_])
            assert messages[id_]["traceparent"] == f"00-{id_}-{spans['publish'].span_id.hex()}-01"
        assert not [span for span in collector.spans if "share:" in str(span)], "no span holds a key"


def is_from_the_deadline_to_the_ack(spans: dict[str, Span], stored: StoredExpiration) -> None:
    root, claim, publish = spans["expiration"], spans["claim"], spans["publish"]
    assert not root.parent_span_id
    assert claim.parent_span_id == publish.parent_span_id == root.span_id
    assert root.start_time_unix_nano == claim.start_time_unix_nano == (stored.deadline_ms or 0) * 1_000_000
    assert claim.end_time_unix_nano == publish.start_time_unix_nano == stored.observed_ms * 1_000_000
    assert publish.end_time_unix_nano == root.end_time_unix_nano >= publish.start_time_unix_nano


async def test_what_is_not_sampled_says_so_and_a_collector_that_is_down_holds_up_nothing() -> None:
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    async with Deployment.of(RedisServer, settings=otel) as deployment:
        bridge = await deployment.ready_bridge(direct=True)
        await deployment.set(keys(KEYS))
        await deployment.delivered()
        told = [message.event for message in await deployment.arrived() or ()]
        parents = [event["traceparent"] for event in told if event["type"] == "redis.key.expired"]
        assert {parent[-2:] for parent in parents} == {"00", "01"}
        assert await bridge.stop(PATIENCE) == 0


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf",
        ),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, None),
    ],
)
async def test_what_cannot_be_traced_is_said_and_all_else_goes_on(
    variables: dict[str, str], reason: str | None, redis_server: RedisServer
) -> None:
    settings = {"BRIDGE_SINK": "stdout", "BRIDGE_REDIS_URL": redis_server.url, **variables}
    async with Bridge(settings) as bridge:
        await bridge.ready()
        assert [event["reason"] for event in events(bridge, "tracing.failed")] == ([reason] if reason else [])
        assert not events(bridge, "tracing.started")


def test_nothing_of_it_is_imported_where_it_is_not_asked_for() -> None:
    code = "import json, sys, bridge.service, bridge.sinks.jetstream; print(json.dumps(sorted(sys.modules)))"
    hidden = "import sys; sys.modules['opentelemetry'] = None; "  # else the client of Redis would look at its API
    found = in_a_process(hidden + code)
    assert "bridge.telemetry.tracing" in found
    parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter")  # the client of Redis loads others
    assert not [name for name in in_a_process(code) if name.startswith(parts)]


def in_a_process(code: str) -> list[str]:
    """What a Python of its own prints of its modules."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    modules: list[str] = json.loads(found.stdout)
    return modules
