"""The demo's tally: what has arrived, what is missing, what is a copy, and whether the story ends well."""

from collections.abc import Collection

import pytest

from bridge.commands.demo.broker import Broker
from bridge.commands.demo.consumer import Consumer, StoredMessage, Tally
from bridge.commands.demo.errors import DemoError
from bridge.commands.demo.jetstream import JetStreamBroker
from bridge.commands.demo.kafka import KafkaBroker
from bridge.commands.demo.stage import Stage
from bridge.commands.demo.story import UNDISTURBED, WHILE_FROZEN, WHILE_KILLED, Story
from bridge.commands.screen import Screen


def stored(key: str, message_id: str, lag: float = 0.5) -> StoredMessage:
    return StoredMessage(message_id, "somewhere", key, "notification", lag, "{}")


def test_the_tally_tells_copies_from_messages_too_many() -> None:
    tally = Tally({"a", "b", "c"}, [stored("a", "1"), stored("a", "1", 9.0), stored("b", "2"), stored("b", "3")])

    assert tally.missing == ["c"]
    assert (tally.delivered, tally.duplicates, tally.surplus) == (2, 1, 1)
    assert tally.lags == (0.5, 0.5)


class Told(Consumer):
    """Has read what it is told of one of the keys, and one message of each other."""

    def __init__(self, *ids: str) -> None:
        """Of the messages for the first of the keys."""
        super().__init__(lambda _: None)
        self.ids = ids

    async def open(self) -> None:
        """See `Consumer`."""

    async def stored(self) -> int:
        """See `Consumer`."""
        return 1

    def tally(self, keys: Collection[str]) -> Tally:
        """See `Consumer`."""
        first, *others = sorted(keys)
        return Tally(keys, [stored(key, key) for key in others] + [stored(first, each) for each in self.ids])


def conclude(broker: Broker, consumer: Consumer) -> bool:
    """Whether the story ends well."""
    return Story(Stage(broker), Screen())._conclude(consumer, 12.0)


def test_what_is_missing_is_named_and_the_story_does_not_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert not conclude(JetStreamBroker(), Told())
    first = min(UNDISTURBED | WHILE_FROZEN | WHILE_KILLED)
    assert f"Missing: {first}. Messages too many: 0." in capsys.readouterr().out


def test_a_second_message_under_another_id_is_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert not conclude(JetStreamBroker(), Told("one", "another"))
    assert "Missing: nothing. Messages too many: 1." in capsys.readouterr().out


def test_copies_are_counted_and_are_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(KafkaBroker(), Told("one", "one", "one"))
    text = capsys.readouterr().out
    [row] = [line.split() for line in text.splitlines() if line.strip().startswith("in all ")]
    assert row[2:6] == ["24", "24", "0", "2"]
    assert "Nothing got lost: 24 keys expired, and 24 are in the topic." in text


async def test_a_consumer_that_fails_ends_the_wait_for_messages() -> None:
    consumer = Told()
    consumer.failed(ValueError("no JSON"))

    with pytest.raises(DemoError, match="cannot be read: ValueError"):
        await consumer.of(UNDISTURBED, 60.0)
    with pytest.raises(DemoError, match="cannot be read: ValueError"):
        await consumer.complete()
