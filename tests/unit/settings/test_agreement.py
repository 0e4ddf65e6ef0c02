"""What all bridges of a namespace must set alike: each setting is one of these, or one of those that may differ."""

import pytest

from bridge.redis.protocol.fingerprint import differences
from bridge.settings import SECRETS, Settings, SinkKind, agreement, variable
from bridge.settings.agreement import ALIKE, ALIKE_OF_SINK
from bridge.settings.model import folded

MAY_DIFFER = {
    "namespace": "another one is another ledger",
    "shards": "agreed on in Redis: a bridge with another number does not start",
    "scan_interval": "of each bridge",
    "outbox_limit": "of each bridge",
    "values_lead": "of each bridge",
    "values_max_bytes": "of each bridge",
    "values_outbox_bytes": "of each bridge",
    "stuck_seconds": "of each bridge",
    "shutdown_timeout": "of each bridge",
    "kafka_compression": "consumers do not see it",
}
PREFIXES_THAT_MAY = ("redis_", "sink_redis_", "nats_", "kafka_", "http_", "log_")
"""Addresses, logins, and what a stream or topic is created with."""


def test_of_each_setting_it_is_known_whether_all_bridges_must_set_it_alike() -> None:
    alike = {*ALIKE, *(name for names in ALIKE_OF_SINK.values() for name in names)}
    unknown = {
        name
        for name in Settings.model_fields
        if name not in alike and name not in MAY_DIFFER and not name.startswith(PREFIXES_THAT_MAY)
    }
    assert unknown == set()
    assert set(ALIKE_OF_SINK) == set(SinkKind)


@pytest.mark.parametrize("sink", SinkKind)
def test_the_agreement_holds_no_secret_and_nothing_of_another_sink(sink: SinkKind) -> None:
    found = agreement(Settings(sink=sink))
    assert set(found) == {variable(name) for name in (*ALIKE, *ALIKE_OF_SINK[sink])}
    assert not [name for name in Settings.model_fields if variable(name) in found and folded(name) in SECRETS]


def test_what_is_set_in_one_bridge_and_unset_in_another_is_a_difference() -> None:
    assert differences(agreement(Settings()), agreement(Settings(fields=["h:*"]))) == [
        "BRIDGE_FIELDS is unset there, and 'h:*' here"
    ]


def test_the_order_of_patterns_makes_no_difference() -> None:
    assert agreement(Settings(keys=["a:*", "b:*"])) == agreement(Settings(keys=["b:*", "a:*"]))
