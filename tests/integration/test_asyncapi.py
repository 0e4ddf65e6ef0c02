"""deploy/asyncapi.yaml is valid AsyncAPI 3.1, and true: what the sinks publish fits it, and what is broken does not."""

import copy
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import orjson
import pytest
import yaml
from pydantic import BaseModel, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

import bridge
from bridge.cloudevents import MAX_TIME_MS, Encoder
from bridge.expiration import NOT_CAPTURED, Event, Expiration, FieldExpiration, GapRecord, Identity, Value, Via
from bridge.settings import Settings
from bridge.sinks.subjects import SubjectTemplate
from tests.support.brokers.each import EACH_BROKER, broker_of
from tests.support.brokers.rigs import NASTY_KEYS, BrokerRig, Received
from tests.support.schemas import validator
from tests.support.servers import ROOT

Document = dict[str, Any]

DOCUMENT: Document = yaml.safe_load((ROOT / "deploy" / "asyncapi.yaml").read_text())
URI = "urn:asyncapi"
REGISTRY: Registry[Any] = Registry().with_resource(URI, Resource.from_contents(DOCUMENT, default_specification=DRAFT7))
MESSAGES = [(channel, name) for channel, about in DOCUMENT["channels"].items() for name in about["messages"]]
OPTIONAL = {"subject", "time", "ce-subject", "ce-time", "ce_subject", "ce_time"}
DEADLINE_MS = 1_795_346_562_164
ID = Identity("/redis", 0).of_deadline(b"share:7f3a", DEADLINE_MS)
FIELD_ID = Identity("/redis", 0).of_field(b"share:7f3a", b"alice", DEADLINE_MS)
GAP_ID = Identity("/redis", 0).of_gap("127.0.0.1:6379", b"1-1")
VALUES = [
    Value("string", DEADLINE_MS - 9, exact=True, content=b"text"),
    Value("string", DEADLINE_MS - 9, content=b"\xff"),
    Value("hash", DEADLINE_MS - 9, exact=True, content=[b"field", b"value"]),
    Value("list", DEADLINE_MS - 9, content=[b"a", b"\xff"]),
    Value("zset", DEADLINE_MS - 9, content=[b"a", b"1.5", b"b", b"-inf"]),
    Value("ReJSON-RL", DEADLINE_MS - 9, content=b'{"a":[1,null]}'),
    Value("string", missing="too_large", size=70_000),
    Value(missing=NOT_CAPTURED),
]
"""Of each shape."""
CHECK_ID = "5c3f2d0e8a914b7fb0c6d1e2f3a4b5c6"
GAP = GapRecord(GAP_ID, "127.0.0.1:6379", DEADLINE_MS, DEADLINE_MS + 1000, "start", None, 2, 0)
UNKNOWN_GAP = GapRecord("3" * 32, "/run/redis.sock", 0, DEADLINE_MS, "\0", 7, 0, 1)


def resolved(reference: str) -> Any:  # noqa: ANN401 - anything can be referred to
    """What a reference leads to, through further ones. Raises KeyError: nothing."""
    node = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return resolved(node["$ref"]) if "$ref" in node else node


def references(node: object) -> Iterator[str]:
    """All of them, in what the node holds."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def fits(pointer: str, value: object) -> bool:
    """Whether the value is as the document's schema at this place says."""
    return validator({"$ref": URI + pointer}, REGISTRY).is_valid(value)


def fitting(channel: str, key: str | None, headers: object, payload: object) -> list[str]:
    """The messages of the channel that this is one of. AsyncAPI wants just one."""
    found = []
    for name, reference in DOCUMENT["channels"][channel]["messages"].items():
        place = reference["$ref"]
        keyed = "bindings" in resolved(place)
        if (
            (fits(f"{place}/bindings/kafka/key", key) if keyed else key is None)
            and fits(f"{place}/headers", headers)
            and fits(f"{place}/payload", payload)
        ):
            found.append(name)
    return found


def example_of(channel: str, name: str) -> tuple[str | None, Document, Document]:
    """Key, headers and payload of the message's example."""
    message = resolved(DOCUMENT["channels"][channel]["messages"][name]["$ref"])
    (example,) = message["examples"]
    key = None
    if channel in {"kafka", "redisStream"}:
        key = {"redis.expiry.gap": "_gap", "redis.expiry.check": "_check"}.get(message["name"], "share:7f3a")
    return key, copy.deepcopy(example["headers"]), copy.deepcopy(example["payload"])


def as_described(message: Received) -> tuple[str, str | None, Document, Document]:
    """Its channel in the document, key, headers and payload. A key's bytes are written as so many characters."""
    headers, payload = dict(message.headers), orjson.loads(message.body)
    if message.key is None:
        if message.channel == "expired.0._gap":
            return "jetstreamGap", None, headers, payload
        if message.channel == "expired.0._check":
            return "jetstreamCheck", None, headers, payload
        assert re.fullmatch(r"expired\.0\.[^.*>\s]+", message.channel)
        return "jetstreamExpired", None, headers, payload
    channel = "redisStream" if message.channel == DOCUMENT["channels"]["redisStream"]["address"] else "kafka"
    return channel, message.key.decode("latin-1"), headers, payload


# Valid AsyncAPI


def api() -> type[BaseModel]:
    """The model of all documents. Making it takes a while, and each process of tests reads this module."""
    from asyncapi3 import AsyncAPI3  # noqa: PLC0415 - see above

    model: type[BaseModel] = AsyncAPI3
    return model


def test_it_is_valid_asyncapi() -> None:
    assert DOCUMENT["asyncapi"] == "3.1.0"
    api().model_validate(DOCUMENT)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document["channels"]["kafka"].update(adress="redis.expired"),
        lambda document: document["operations"]["publishToKafka"].update(action="publish"),
        lambda document: document["servers"]["nats"].pop("host"),
        lambda document: document["channels"]["kafka"]["bindings"]["kafka"].update(topics=1),
        lambda document: document["components"]["messages"]["natsGap"].update(examples=[{"name": "empty"}]),
    ],
)
def test_a_damaged_document_is_not(damage: Callable[[Document], object]) -> None:
    damaged = copy.deepcopy(DOCUMENT)
    damage(damaged)
    with pytest.raises(ValidationError):
        api().model_validate(damaged)


def test_every_reference_leads_somewhere_and_every_component_is_referred_to() -> None:
    used = set(references(DOCUMENT))
    for reference in used:
        resolved(reference)
    components = {f"#/components/{kind}/{name}" for kind, named in DOCUMENT["components"].items() for name in named}
    assert components <= used


@pytest.mark.unmeasured
def test_schemas_are_json_schemas() -> None:
    messages = DOCUMENT["components"]["messages"].values()
    keys = [message["bindings"]["kafka"]["key"] for message in messages if "bindings" in message]
    assert len(keys) == 8
    for schema in [*DOCUMENT["components"]["schemas"].values(), *keys]:
        validator(schema).check_schema(schema)


def test_every_message_of_a_channel_is_sent_by_an_operation_on_it() -> None:
    sent = []
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        assert operation["action"] == "send"
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
        sent += [message["$ref"] for message in operation["messages"]]
    assert sorted(sent) == sorted(f"#/channels/{channel}/messages/{name}" for channel, name in MESSAGES)


@pytest.mark.parametrize("channel", DOCUMENT["channels"])
def test_a_channels_parameters_are_those_of_its_address(channel: str) -> None:
    about = DOCUMENT["channels"][channel]
    assert set(about.get("parameters", {})) == set(re.findall(r"\{(\w+)\}", about["address"]))


# True


def test_addresses_are_the_defaults_of_the_settings() -> None:
    settings, channels, servers = Settings(), DOCUMENT["channels"], DOCUMENT["servers"]
    assert settings.nats_url.get_secret_value() == f"nats://{servers['nats']['host']}"
    assert settings.kafka_bootstrap_servers == [servers["kafka"]["host"]]
    assert channels["jetstreamExpired"]["address"] == settings.nats_subject
    assert channels["jetstreamGap"]["address"].format(db=3) == SubjectTemplate(settings.nats_subject, 3).gap
    assert channels["jetstreamCheck"]["address"].format(db=3) == SubjectTemplate(settings.nats_subject, 3).check
    assert channels["redisStream"]["address"] == settings.sink_redis_stream
    assert settings.redis_url.get_secret_value() == f"redis://{servers['redis']['host']}/0"
    topic = channels["kafka"]["bindings"]["kafka"]
    assert channels["kafka"]["address"] == topic["topic"] == settings.kafka_topic
    assert topic["partitions"] == settings.kafka_partitions
    assert DOCUMENT["info"]["version"] == bridge.__version__


@pytest.fixture(params=EACH_BROKER)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[BrokerRig]:
    async with broker_of(request) as made:
        yield made


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_what_is_published_is_what_it_says(rig: BrokerRig, mode: Literal["structured", "binary"]) -> None:
    events: list[Event] = [
        Expiration(ID, b"share:7f3a", DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION),  # the document's example
        Expiration("0" * 32, b"unknown", None, DEADLINE_MS, Via.SWEEP),
        Expiration("1" * 32, b"far", 2**63 - 1, DEADLINE_MS, Via.SWEEP),
        Expiration("2" * 32, b"timeless", None, MAX_TIME_MS + 1, Via.SWEEP),
        *(
            Expiration(f"a{number:031x}", b"valued:%d" % number, DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION, value)
            for number, value in enumerate(VALUES)
        ),
        *(
            Expiration(f"{number:032x}", key, DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION)
            for number, key in enumerate(NASTY_KEYS, 3)
        ),
    ]
    fields: list[Event] = [
        FieldExpiration(FIELD_ID, b"share:7f3a", b"alice", DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION),  # likewise
        FieldExpiration("f" * 32, b"\xff", b"\xfe", DEADLINE_MS, DEADLINE_MS, Via.SWEEP),
        FieldExpiration("e" * 32, b"", b"", 2**63 - 1, DEADLINE_MS, Via.SWEEP),
    ]
    encoder = Encoder("/redis", 0, mode)
    traced = Encoder("/redis", 0, mode, "00-{}-00f067aa0ba902b7-01".format)
    events.append(Expiration("d" * 32, b"traced", DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION))
    fields.append(FieldExpiration("c" * 32, b"h", b"traced", DEADLINE_MS, DEADLINE_MS + 2, Via.NOTIFICATION))
    messages = [encoder.encode(event) for event in events[:-1]]
    messages += [traced.encode(events[-1]), *map(encoder.encode, fields[:-1]), traced.encode(fields[-1])]
    messages += [encoder.encode(GAP), encoder.encode(UNKNOWN_GAP)]
    received = await rig.published([*messages, encoder.trial(CHECK_ID, DEADLINE_MS)])
    described = [as_described(message) for message in received]
    assert len(described) == len(events) + 7
    parts = {
        "expired": described[:-7],
        "field": described[-7:-3],
        "gap": described[-3:-1],
        "check": described[-1:],
    }
    for kind, part in parts.items():
        channel = part[0][0]
        plain = channel.startswith("jetstream") and kind != "field"
        name = mode if plain else f"{kind}{mode.capitalize()}"
        for message in part:
            assert fitting(*message) == [name]
        assert part[0] == (channel, *example_of(channel, name))


# And not true of anything else


@pytest.mark.parametrize(("channel", "name"), MESSAGES)
def test_an_example_fits_its_message_alone(channel: str, name: str) -> None:
    assert fitting(channel, *example_of(channel, name)) == [name]


@pytest.mark.parametrize(("channel", "name"), MESSAGES)
def test_a_message_with_a_field_too_many_or_too_few_fits_none(channel: str, name: str) -> None:
    def parts(headers: Document, payload: Document) -> list[Document]:
        return [headers, payload, *([payload["data"]] if "data" in payload else [])]

    for index, part in enumerate(parts(*example_of(channel, name)[1:])):
        for field in {*part, "unknown"} - OPTIONAL:
            key, headers, payload = example_of(channel, name)
            changed = parts(headers, payload)[index]
            if field in changed:
                del changed[field]
            else:
                changed[field] = "x"
            assert fitting(channel, key, headers, payload) == [], f"{field} of {part}"


@pytest.mark.parametrize(
    ("channel", "name", "where", "value"),
    [
        ("kafka", "expiredStructured", "headers content-type", "application/json"),
        ("kafka", "expiredBinary", "headers content-type", "application/cloudevents+json"),
        ("kafka", "expiredBinary", "headers ce_type", "redis.expiry.gap"),
        ("kafka", "expiredBinary", "headers ce_specversion", "0.3"),
        ("kafka", "expiredStructured", "payload time", "2026-11-22T11:22:42Z"),
        ("kafka", "expiredStructured", "payload id", ID.upper()),
        ("jetstreamExpired", "binary", "headers ce-subject", "ü"),
        ("jetstreamExpired", "binary", "headers ce-subject", "two words"),
        ("jetstreamExpired", "binary", "headers Nats-Msg-Id", "x"),
        ("jetstreamExpired", "binary", "payload via", "guess"),
        ("jetstreamExpired", "binary", "payload deadline_ms", "1795346562164"),
        ("jetstreamExpired", "binary", "payload deadline_ms", 2**63),
        ("jetstreamExpired", "binary", "payload observed_ms", None),
        ("jetstreamExpired", "binary", "payload key_base64", b64encode(b"\xff").decode()),  # beside `key`
        ("jetstreamExpired", "structured", "payload subject", ""),
        ("jetstreamGap", "binary", "payload missed", "unknown"),
        ("jetstreamGap", "binary", "payload recovered", -1),
        ("jetstreamGap", "structured", "payload type", "redis.key.expired"),
    ],
)
def test_a_message_with_a_wrong_value_fits_none(channel: str, name: str, where: str, value: object) -> None:
    key, headers, payload = example_of(channel, name)
    part, field = where.split()
    (headers if part == "headers" else payload)[field] = value
    assert fitting(channel, key, headers, payload) == []


def test_on_kafka_a_gap_record_has_its_own_key() -> None:
    _, headers, payload = example_of("kafka", "gapBinary")
    assert fitting("kafka", "share:7f3a", headers, payload) == []
