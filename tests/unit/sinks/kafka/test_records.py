"""Messages as records."""

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.contracts import Message
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.records import EMPTY_BYTES, Records, headers_of, size
from tests.support.brokers.caller import Tally

ATTRIBUTES = st.dictionaries(st.text("abc", min_size=1, max_size=20), st.text(max_size=200), max_size=9)
MESSAGES = st.builds(Message, st.text("0123", max_size=32), st.binary(), st.binary(), st.text(max_size=40), ATTRIBUTES)


def test_in_structured_mode_the_headers_are_the_id_and_the_content_type() -> None:
    message = Message("9f", b"k", b"{}", "application/cloudevents+json")
    assert headers_of(message) == [("ce_id", b"9f"), ("content-type", b"application/cloudevents+json")]


def test_in_binary_mode_they_are_all_attributes_the_id_once() -> None:
    message = Message("9f", b"k", b"{}", "application/json", {"specversion": "1.0", "id": "9f", "subject": "ü\n"})
    assert headers_of(message) == [
        ("ce_id", b"9f"),
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_subject", "ü\n".encode()),
    ]


@pytest.mark.unmeasured
@settings(deadline=None)  # the machine may be busy
@given(st.lists(MESSAGES, max_size=5))
async def test_no_batch_of_records_is_larger_than_it_is_said_to_be(messages: list[Message]) -> None:
    records = Records(("topic", 0), BatchBuilder(1 << 30, 0))
    assert records.bytes == EMPTY_BYTES == records.builder.size()
    load = Load(messages, Tally())
    for index, message in enumerate(messages):
        headers = headers_of(message)
        records.add(load, index, headers, size(message, headers))
        assert records.builder.size() <= records.bytes
    assert [load.messages[index] for index in records.indices] == messages
