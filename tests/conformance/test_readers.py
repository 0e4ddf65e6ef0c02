"""What every reader must do, whatever the broker: read nothing from before it was opened; after that all, once."""

from collections.abc import AsyncIterator

import pytest

from bridge.commands.readers import Reader, create
from bridge.settings import Settings
from tests.conformance.kafka_rig import KafkaRig
from tests.conformance.rigs import PATIENCE, JetStreamRig, messages
from tests.servers import wait_until

AnyRig = JetStreamRig | KafkaRig


@pytest.fixture(params=["jetstream", "kafka"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[AnyRig]:
    """Each broker in turn, with several partitions where it has any."""
    if request.param == "kafka":
        made: AnyRig = KafkaRig(request.getfixturevalue("kafka_server"), kafka_partitions=3)
    else:
        made = JetStreamRig()
    async with made:
        yield made


def reader_of(rig: AnyRig) -> Reader:
    kind = "kafka" if isinstance(rig, KafkaRig) else "jetstream"
    return create(Settings.model_validate({**rig.settings, "sink": kind}), 0, (b"share:0", b"share:1"))


async def read(reader: Reader, count: int) -> list[bytes]:
    """The keys of what comes: so many, and what more a further look brings."""
    found: list[bytes] = []

    async def are_there() -> bool:
        found.extend([arrival.key for arrival in await reader.read()])
        return len(found) >= count

    await wait_until(are_there, lambda: f"{count} messages, there are {found}", PATIENCE)
    found.extend([arrival.key for arrival in await reader.read()])
    return sorted(found)


async def test_it_reads_what_comes_after_it_was_opened_and_goes_on_where_it_was(rig: AnyRig) -> None:
    batch = messages(9)
    keys = [message.key for message in batch]
    reader = reader_of(rig)
    async with rig.opened() as sink:
        await sink.publish(batch[:3])
        try:
            await reader.open()
            await sink.publish(batch[3:6])
            assert await read(reader, 3) == keys[3:6]
            await reader.close()
            await sink.publish(batch[6:8])
            await reader.open()
            await sink.publish(batch[8:])
            assert await read(reader, 3) == keys[6:]
        finally:
            await reader.close()
