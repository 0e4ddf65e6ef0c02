"""The messages: their description as AsyncAPI's own parser reads it, their schemas as files, an SDK's view of them."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest

from bridge.cloudevents import Encoder
from bridge.expiration import Expiration, FieldExpiration, GapRecord, Via
from tests.support import schemas
from tests.support.brokers.each import EACH_BROKER, broker_of
from tests.support.brokers.rigs import NASTY_KEYS, BrokerRig, messages
from tests.support.deployed import DEPLOY
from tests.support.node import node

Mode = Literal["structured", "binary"]

T = 1_795_346_562_000
GAP = GapRecord("9" * 32, "127.0.0.1:6379", T - 500, T + 500, "start", None, 0, 0)
KEYS = [b"share:7f3a", "größe:ü".encode(), b"\xff%a", b"two words", b'"%25"']
PARSE = """
import { Parser, fromFile } from '@asyncapi/parser';
const { diagnostics } = await fromFile(new Parser(), process.argv[1]).parse();
for (const found of diagnostics) console.log(found.severity, found.code, found.path.join('.'), found.message);
"""
READ = """
import { HTTP, Kafka } from 'cloudevents';
import { readFileSync } from 'node:fs';
const binding = process.argv[1] === 'HTTP' ? HTTP : Kafka;
const events = JSON.parse(readFileSync(0)).map(({ headers, body }) => {
  const event = binding.toEvent(binding === Kafka ? { headers, body, value: body } : { headers, body });
  if (!event.validate()) throw new Error(`no CloudEvent: ${body}`);
  return event;
});
console.log(JSON.stringify(events));
"""


def fits(body: bytes | str, mode: Mode) -> list[str]:
    """The types whose schema file the payload fits."""
    suffix = ".schema.json" if mode == "structured" else ".data.schema.json"
    files = [file for file in schemas.schemas() if (".data." in file.name) == (mode == "binary")]
    fitting = [file for file in files if schemas.validator(json.loads(file.read_text())).is_valid(json.loads(body))]
    return sorted(file.name.removesuffix(suffix) for file in fitting)


def test_the_parser_of_asyncapi_finds_no_fault_in_the_document() -> None:
    assert node(PARSE, str(DEPLOY / "asyncapi.yaml")) == ""


def test_the_parser_of_asyncapi_finds_a_fault_where_there_is_one(tmp_path: Path) -> None:
    damaged = tmp_path / "asyncapi.yaml"
    damaged.write_text((DEPLOY / "asyncapi.yaml").read_text().replace("action: send", "action: publish", 1))

    assert "action" in node(PARSE, str(damaged))


def test_a_script_that_fails_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        node("throw new Error('x')")


# The schemas as files.


def test_the_schema_files_are_those_of_the_document_and_schemas_themselves() -> None:
    made = schemas.files()

    assert {file: file.read_text() for file in schemas.DIRECTORY.iterdir()} == made, "run `make docs`"
    assert len(made) >= 6
    for text in made.values():
        schema = json.loads(text)
        schemas.validator(schema).check_schema(schema)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_what_the_bridge_encodes_fits_the_schema_file_of_its_type_alone(mode: Mode) -> None:
    encoder = Encoder("/redis", 0, mode)
    encoded = [
        *messages(0, keys=NASTY_KEYS, mode=mode),
        encoder.encode(Expiration("0" * 32, b"unknown", None, T, Via.SWEEP)),
        encoder.encode(FieldExpiration("1" * 32, b"share:7f3a", b"\xff", T, T, Via.SWEEP)),
        encoder.encode(GAP),
        encoder.trial("5" * 32, T),
    ]

    fitting = [fits(message.body, mode) for message in encoded]

    assert fitting[-3:] == [["redis.hash.field.expired"], ["redis.expiry.gap"], ["redis.expiry.check"]]
    assert fitting[:-3] == [["redis.key.expired"]] * (len(encoded) - 3)


def test_a_message_that_is_not_as_it_should_be_fits_no_schema_file() -> None:
    [message] = messages(1)
    event = json.loads(message.body)

    assert fits(json.dumps(event), "structured")
    assert not fits(json.dumps({**event, "data": {**event["data"], "via": "guess"}}), "structured")
    assert not fits(json.dumps({**event, "more": 1}), "structured")


# CloudEvents, as the SDK for JavaScript reads them; `tests/conformance` has the one for Python.


@pytest.fixture(params=EACH_BROKER)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[BrokerRig]:
    async with broker_of(request) as made:
        yield made


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_the_sdk_for_javascript_reads_every_attribute_and_the_data_back(rig: BrokerRig, mode: Mode) -> None:
    encoded = [json.loads(message.body) for message in messages(0, keys=KEYS)]
    received = await rig.published(messages(0, keys=KEYS, mode=mode))
    # For NATS, the SDK has HTTP's binding, whose header values are encoded alike; but it does not decode them itself.
    binding = "HTTP" if received[0].key is None else "Kafka"
    decode = unquote if binding == "HTTP" else str
    given = [
        {"headers": {name: decode(value) for name, value in message.headers.items()}, "body": message.body.decode()}
        for message in received
    ]

    events = json.loads(node(READ, binding, given=json.dumps(given)))

    assert events == encoded
