"""What sentinels say, and whom to believe when they disagree."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.errors import NotConnected
from bridge.redis.wire.endpoint import Address, Endpoint
from bridge.redis.wire.sentinel import Answer, Sentinels, newest
from bridge.settings import Settings

OLD, NEW, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)


def says(address: Address, epoch: int) -> Answer:
    """One sentinel's answer."""
    return Answer("10.0.0.9:26379", address, epoch, frozenset({"master"}), quorum=2, others=2, replicas=1)


def test_one_sentinel_is_enough() -> None:
    assert newest([says(OLD, 0)]) == OLD


def test_the_newest_configuration_outweighs_any_number_of_older_ones() -> None:
    assert newest([says(OLD, 6), says(NEW, 7), says(OLD, 6)]) == NEW


def test_within_one_epoch_the_most_sentinels_are_right_in_any_order() -> None:
    answers = [says(OLD, 7), says(NEW, 7), says(NEW, 7), says(OTHER, 6)]
    assert newest(answers) == newest(answers[::-1]) == NEW


ADDRESS = b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n"
STATE = b"*4\r\n$5\r\nflags\r\n$6\r\nmaster\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n"


@asynccontextmanager
async def answering(address: bytes, state: bytes) -> AsyncIterator[Sentinels]:
    """A sentinel that answers its two questions so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                await reader.readline()
                words.append((await reader.readline()).strip().upper())
            replies = {b"GET-MASTER-ADDR-BY-NAME": address, b"MASTER": state}
            writer.write(replies.get(words[1], b"+OK\r\n"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port}/main/0"
        sentinels = Sentinels(Endpoint.of(Settings.model_validate({"redis_url": url, "sink": "stdout"})))
        try:
            yield sentinels
        finally:
            await sentinels.close()


async def test_what_a_sentinel_says_is_read() -> None:
    async with answering(ADDRESS, STATE) as sentinels:
        assert await sentinels.primary() == ("10.0.0.1", 6379)


@pytest.mark.parametrize(
    ("address", "state"),
    [
        (b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\nhigh\r\n", STATE),
        (b"*2\r\n$8\r\n10.0.0.1\r\n$5\r\n99999\r\n", STATE),
        (b"*2\r\n$4\r\na..b\r\n$4\r\n6379\r\n", STATE),
        (b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n", STATE),
        (b"*2\r\n$3\r\na\0b\r\n$4\r\n6379\r\n", STATE),
        (b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n", STATE),
        (b"*1\r\n$8\r\n10.0.0.1\r\n", STATE),
        (b"*0\r\n", STATE),
        (b":7\r\n", STATE),
        (ADDRESS, b"*1\r\n$5\r\nflags\r\n"),
        (ADDRESS, b"*2\r\n$12\r\nconfig-epoch\r\n$3\r\nnew\r\n"),
        (ADDRESS, b"*2\r\n:1\r\n:2\r\n"),
        (ADDRESS, b"$-1\r\n"),
        (ADDRESS, b"+OK\r\n"),
    ],
)
async def test_an_answer_that_cannot_be_understood_is_none(address: bytes, state: bytes) -> None:
    async with answering(address, state) as sentinels:
        (reply,) = await sentinels.ask()
        assert isinstance(reply, NotConnected)
        assert re.fullmatch(r"Sentinel at \S+ does not answer as a sentinel does \(\w+\)", str(reply))
        with pytest.raises(NotConnected, match="no sentinel answers: Sentinel at"):
            await sentinels.primary()
