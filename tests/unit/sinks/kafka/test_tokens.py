"""Tokens of the user's own provider."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.tokens import NoToken, tokens_of
from tests.support.hand_clock import HandClock


class Hanging:
    """Returns when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def token(self) -> str:
        """See the library."""
        self.calls += 1
        self.go.wait()
        return "a token"


hanging = Hanging()


async def test_a_provider_that_hangs_is_asked_again_ever_more_rarely() -> None:
    settings = Settings.model_construct(kafka_sasl_oauth_provider=f"{__name__}:hanging")
    clock, limits = HandClock(), replace(KafkaLimits(), token=0.01)
    calls = []
    try:
        for _ in range(31):
            with pytest.raises(NoToken, match="no token came"):
                await tokens_of(settings, clock, limits).token()
            calls.append(hanging.calls)
            clock.now += 1
        assert calls == [*[1] * 10, *[2] * 20, 3]
    finally:
        hanging.go.set()
    clock.now += 100
    assert await tokens_of(settings, clock, KafkaLimits()).token() == "a token"
    for thread in threading.enumerate():
        if thread.name == "in-thread":
            thread.join()


async def test_a_token_service_that_never_ends_its_answer_is_asked_again() -> None:
    """Each byte comes in time, and the last one never."""
    asked: list[asyncio.StreamWriter] = []

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(writer)
        body = b'{"access_token": "a token"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body if len(asked) > 1 else body[:1])
        await writer.drain()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.model_construct(
        kafka_sasl_oauth_token_url=f"http://127.0.0.1:{port}/", kafka_sasl_oauth_client_id="bridge"
    )
    clock = HandClock()
    try:
        for _ in range(3):
            with pytest.raises(NoToken, match="no token came"):
                await tokens_of(settings, clock, replace(KafkaLimits(), token=0.3)).token()
        assert len(asked) == 1
        clock.now += 10
        assert await tokens_of(settings, clock, KafkaLimits()).token() == "a token"
    finally:
        for writer in asked:
            writer.close()
        server.close()


async def test_a_token_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    file, new = tmp_path / "token", tmp_path / "new"
    file.write_text("one", encoding="utf-8")
    tokens = tokens_of(Settings.model_construct(kafka_sasl_oauth_token_file=file), SystemClock(), KafkaLimits())
    assert await tokens.token() == "one"
    new.write_text("two", encoding="utf-8")
    new.replace(file)
    assert await tokens.token() == "two"
    file.write_text("", encoding="utf-8")  # in the middle of being written
    with pytest.raises(NoToken):
        await tokens.token()
    file.write_text("three", encoding="utf-8")
    assert await tokens.token() == "three"


@pytest.mark.parametrize("token", ["", "half a \ud800", None, b"bytes"])
async def test_what_cannot_be_sent_is_no_token(token: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async def given() -> object:
        return token

    monkeypatch.setattr(hanging, "token", given)
    settings = Settings.model_construct(kafka_sasl_oauth_provider=f"{__name__}:hanging")
    clock = HandClock()
    clock.now = 1e6  # whatever hung before is given up
    with pytest.raises(NoToken, match="gives no token"):
        await tokens_of(settings, clock, KafkaLimits()).token()
