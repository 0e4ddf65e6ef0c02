"""Both content modes on both brokers: what was published, read by the CloudEvents SDK and by the bindings' words."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, from_structured_event

from tests.support.brokers.each import EACH_WAY, broker_of
from tests.support.brokers.rigs import NASTY_KEYS, BrokerRig, Received, messages

Mode = Literal["structured", "binary"]


@pytest.fixture(params=EACH_WAY)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[BrokerRig]:
    async with broker_of(request) as made:
        yield made


def event_of(message: Received) -> BaseCloudEvent:
    """By the SDK. For NATS it has no binding of its own, but HTTP's, whose header values are encoded alike.

    Its `from_kafka` would take any `ce_` header for binary mode, and the key for an attribute; by the Kafka binding the
    content type alone decides, and a key is no attribute.
    """
    if message.key is None:
        return from_http_event(HTTPMessage(dict(message.headers), message.body))
    headers = {name: value.encode() for name, value in message.headers.items()}
    structured = message.headers["content-type"].startswith("application/cloudevents")
    read = from_structured_event if structured else from_binary_event
    return read(KafkaMessage(headers, None, message.body))


def written(event: BaseCloudEvent) -> dict[str, Any]:
    """All of the event, as structured mode writes it."""
    time = event.get_time()
    assert time is not None
    return {**event.get_attributes(), "time": f"{time:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", "data": event.get_data()}


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_the_sdk_reads_every_attribute_and_the_data_back(rig: BrokerRig, mode: Mode) -> None:
    encoded = [orjson.loads(message.body) for message in messages(0, keys=NASTY_KEYS)]
    received = await rig.published(messages(0, keys=NASTY_KEYS, mode=mode))
    assert [written(event_of(message)) for message in received] == encoded
    assert [message.key for message in received] in (NASTY_KEYS, [None] * len(NASTY_KEYS))


async def test_structured_mode_has_the_headers_of_the_contract(rig: BrokerRig) -> None:
    (message,) = messages(1)
    (received,) = await rig.published([message])
    id_header = "Nats-Msg-Id" if received.key is None else "ce_id"
    assert received.headers == {"content-type": "application/cloudevents+json", id_header: message.id}


async def test_binary_mode_has_the_headers_of_the_brokers_binding(rig: BrokerRig) -> None:
    """The NATS binding percent-encodes what is not printable ASCII, and has a header for the data's content type.

    The Kafka binding takes UTF-8 as it is, and has `content-type` for that.
    """
    (message,) = messages(0, keys=["Euro € 😀".encode()], mode="binary")
    (received,) = await rig.published([message])
    attributes = {**message.attributes, "specversion": "1.0", "source": "/redis", "type": "redis.key.expired"}
    assert attributes.keys() == {"specversion", "id", "source", "type", "subject", "time"}
    if received.key is None:
        attributes |= {"subject": "Euro%20%E2%82%AC%20%F0%9F%98%80", "datacontenttype": "application/json"}
        wanted = {f"ce-{name}": value for name, value in attributes.items()} | {"Nats-Msg-Id": message.id}
    else:
        attributes["subject"] = "Euro € 😀"
        wanted = {f"ce_{name}": value for name, value in attributes.items()}
    assert received.headers == {"content-type": "application/json", **wanted}
