"""What the JetStream sink does when NATS, or the way to it, fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from bridge.clock import SystemClock
from bridge.contracts import Message
from bridge.errors import NotConnected
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream import JetStreamSink
from bridge.sinks.jetstream.headers import headers_of, size
from tests.support.brokers.caller import Caller, Rejected, TakenLater, Tally
from tests.support.brokers.rigs import JetStreamRig, batches, deliver, ids, messages
from tests.support.proxy import TO_CLIENT, TO_SERVER, Action, Protocol, Proxy
from tests.support.servers import wait_until

ACK = rb"^MSG _INBOX.*\"stream\""
FREEZE_SECONDS = 10.0
"""Generous: five are promised."""


@pytest.fixture
async def rig() -> AsyncIterator[JetStreamRig]:
    async with JetStreamRig() as made:
        yield made


@pytest.fixture
async def sink(rig: JetStreamRig) -> AsyncIterator[Caller]:
    async with rig.opened() as made:
        yield made


@pytest.fixture
async def proxy(rig: JetStreamRig) -> AsyncIterator[Proxy]:
    async with Proxy(rig.server.port, Protocol.NATS) as made:
        yield made


@pytest.fixture
async def proxied(rig: JetStreamRig, proxy: Proxy) -> AsyncIterator[Caller]:
    """A sink, impatient for acks, that sees the server through the proxy."""
    async with rig.opened(JetStreamLimits(ack=0.5), nats_url=f"nats://127.0.0.1:{proxy.port}") as made:
        yield made


class Breaking(SystemClock):
    """It fails, once it is broken, when missing acks are looked for: that stands for a bug there."""

    broken = False

    async def tick(self, seconds: float) -> None:
        """See `Clock`."""
        await super().tick(seconds)
        if self.broken and seconds == JetStreamLimits().tick:
            raise KeyError("a secret")


def ids_of(batches_: list[list[Message]]) -> list[str]:
    return [id_ for batch in batches_ for id_ in ids(batch)]


async def test_the_same_ids_are_stored_once(rig: JetStreamRig, sink: Caller) -> None:
    batch = messages(100)
    await asyncio.gather(sink.publish(batch), sink.publish(batch))
    await sink.publish(batch)
    assert sorted(await rig.stored()) == sorted(ids(batch))


async def test_a_session_whose_watch_fails_leaves_no_batch_waiting(rig: JetStreamRig) -> None:
    clock = Breaking()
    sink = Caller(JetStreamSink(Settings(**rig.settings), 0, clock, JetStreamLimits(), rig.observed))
    await sink.open()
    rig.freeze()
    try:
        publishing = asyncio.create_task(sink.publish(messages(10)))
        await asyncio.sleep(0)
        clock.broken = True
        async with asyncio.timeout(FREEZE_SECONDS):
            with pytest.raises(NotConnected, match="jetstream-acks failed: KeyError"):
                await publishing
    finally:
        rig.thaw()
        await sink.close()


async def test_the_event_loop_turns_while_a_large_batch_is_published(sink: Caller) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn(), name="turn")
    await sink.publish(messages(5000))
    turning.cancel()
    assert turns > 50


async def test_a_message_is_found_under_its_subject_with_its_headers(rig: JetStreamRig, sink: Caller) -> None:
    await sink.publish(messages(0, keys=[b"share:7f3a"], mode="binary"))
    async with rig.client() as client:
        stored = await client.jetstream().get_last_msg("EXPIRY", "expired.0.share")
    assert stored.headers is not None
    assert stored.headers["ce-subject"] == "share:7f3a"
    assert stored.headers["Nats-Msg-Id"] == stored.headers["ce-id"]


@pytest.mark.unmeasured
async def test_a_broker_that_is_killed_mid_publish_gets_everything_once(rig: JetStreamRig, sink: Caller) -> None:
    wanted = batches(40, 500)
    delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted[:20]]
    await asyncio.wait(delivering, return_when=asyncio.FIRST_COMPLETED)
    rig.server.pause()  # else it may have acked everything before it is killed
    delivering += [asyncio.create_task(deliver(sink, batch)) for batch in wanted[20:]]
    await asyncio.sleep(0)
    rig.server.kill()
    rig.server.start()
    await asyncio.gather(*delivering)
    assert sorted(await rig.stored()) == sorted(ids_of(wanted))
    assert sink.ends


async def test_a_broker_that_dies_ends_batches_in_not_connected_at_once(rig: JetStreamRig, sink: Caller) -> None:
    rig.server.pause()
    publishing = [asyncio.create_task(sink.publish(batch)) for batch in batches(20, 500)]
    await asyncio.sleep(0.05)
    rig.server.kill()
    async with asyncio.timeout(FREEZE_SECONDS / 5):
        results = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(result, NotConnected) for result in results)
    assert not sink.connected
    with pytest.raises(NotConnected):
        await sink.open()


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 64 * 1024], ids=["idle", "with unsent bytes"])
async def test_a_frozen_broker_is_noticed(rig: JetStreamRig, sink: Caller, padding: int) -> None:
    rig.server.pause()
    batch = messages(0, keys=[b"%d:" % i + b"x" * padding for i in range(200 if padding else 1)])
    async with asyncio.timeout(FREEZE_SECONDS):
        with pytest.raises(NotConnected, match="PING"):
            await sink.publish(batch)
    assert not sink.connected
    with pytest.raises(NotConnected):
        await sink.open()
    rig.server.resume()
    await deliver(sink, batch)
    assert sorted(await rig.stored()) == sorted(ids(batch))


async def test_a_lost_ack_is_made_up_for_by_sending_that_message_again(
    rig: JetStreamRig, proxy: Proxy, proxied: Caller
) -> None:
    lost = [proxy.break_on(TO_CLIENT, ACK, Action.DROP) for _ in range(3)]
    batch = messages(500)
    await proxied.publish(batch)
    assert all(breakpoint_.connection for breakpoint_ in lost)
    assert rig.observed.resends == [1, 2], "one to find out, and then the others"
    assert await rig.stored() == ids(batch)


async def test_without_acks_a_message_is_sent_again_and_again_and_is_never_given_up(
    rig: JetStreamRig, proxy: Proxy
) -> None:
    lost = [proxy.break_on(TO_CLIENT, ACK, Action.DROP) for _ in range(4)]
    limits = JetStreamLimits(ack=0.1, tick=0.02)
    async with rig.opened(limits, nats_url=f"nats://127.0.0.1:{proxy.port}") as sink:
        batch = messages(1)
        await sink.publish(batch)
    assert all(breakpoint_.connection for breakpoint_ in lost)
    assert rig.observed.resends == [1] * 4
    assert await rig.stored() == ids(batch)


async def test_an_ack_counts_however_late_it_comes_and_those_of_others_do_not_wait_for_it(
    rig: JetStreamRig, proxy: Proxy
) -> None:
    held = proxy.break_on(TO_CLIENT, ACK, Action.HOLD)
    limits = JetStreamLimits(ack=0.1, tick=0.02, ping=60)
    async with rig.opened(limits, nats_url=f"nats://127.0.0.1:{proxy.port}") as sink:
        publishing = asyncio.create_task(sink.publish(messages(20)))
        await held.reached()
        await wait_until(lambda: len(rig.observed.resends) >= 2)
        held.release()
        await publishing
        assert sink.connected
    assert await rig.stored() == ids(messages(20))


async def test_acks_that_always_come_late_make_progress_and_only_one_message_of_many_is_sent_again(
    rig: JetStreamRig, proxy: Proxy
) -> None:
    limits = JetStreamLimits(ack=0.2, tick=0.02)
    async with rig.opened(limits, nats_url=f"nats://127.0.0.1:{proxy.port}") as sink:
        proxy.delay = 0.4  # each way
        wanted = batches(5, 20)
        for batch in wanted:
            await sink.publish(batch)
        assert set(rig.observed.resends) == {1}
        assert sink.connected
    assert await rig.stored() == ids_of(wanted)


async def test_what_is_acked_or_refused_has_its_receipt_while_a_neighbour_is_without_an_answer(
    rig: JetStreamRig,
) -> None:
    async with rig.client() as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(
            name="EXPIRY",
            subjects=["expired.*.k", "expired.*.full"],
            max_msgs_per_subject=5,
            discard="new",
            discard_new_per_subject=True,
        )
        await client.subscribe("expired.*.silent")
        await client.flush()
        keys = [b"silent:1", *[b"full:%d" % n for n in range(6)], *[b"k:%d" % n for n in range(5)]]
        batch = messages(0, keys=keys)
        async with rig.opened(JetStreamLimits(tick=0.02)) as sink:
            tally = Tally()
            publishing = asyncio.create_task(sink.publish_with(tally, batch))
            await wait_until(lambda: len(tally.known) == len(batch) - 1)
            assert not publishing.done()
            assert len(tally.acks) == 10
            (refusal,) = tally.refusals.values()
            assert "maximum messages per subject" in refusal
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)


async def test_a_connection_that_is_cut_between_store_and_ack_costs_nothing(
    rig: JetStreamRig, proxy: Proxy, proxied: Caller
) -> None:
    proxy.break_on(TO_CLIENT, ACK, Action.CUT)
    batch = messages(100)
    with pytest.raises(NotConnected):
        await proxied.publish(batch)
    await deliver(proxied, batch)
    assert await rig.stored() == ids(batch)


async def test_close_while_publishing_ends_the_batch_in_not_connected(proxy: Proxy, proxied: Caller) -> None:
    held = proxy.break_on(TO_SERVER, rb"^HPUB", Action.HOLD)
    publishing = asyncio.create_task(proxied.publish(messages(1)))
    await held.reached()
    await proxied.close()
    with pytest.raises(NotConnected, match="closed"):
        await publishing


async def test_a_server_error_that_closes_the_connection_is_the_reason_and_open_makes_a_new_one() -> None:
    async with JetStreamRig("max_control_line: 512") as rig, rig.opened() as sink:
        with pytest.raises(NotConnected, match="maximum control line exceeded"):
            await sink.publish(messages(0, keys=[b"x" * 600]))
        batch = messages(10)
        await deliver(sink, batch)
        assert await rig.stored() == ids(batch)
        assert "maximum control line exceeded" in sink.ends[0]


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_what_is_too_large_with_its_headers_is_rejected_and_all_else_is_stored(
    mode: Literal["structured", "binary"],
) -> None:
    async with JetStreamRig("max_payload: 8192") as rig, rig.opened() as sink:
        small = messages(3, mode=mode)
        model = small[0]._replace(id="0" * 32)
        room = 8192 - size(headers_of(model))
        fits, does_not = model._replace(body=b"x" * room), model._replace(id="1" * 32, body=b"x" * (room + 1))
        long_subject = messages(0, keys=[b"x" * 5000], mode=mode)[0]
        batch = [small[0], does_not, small[1], fits, long_subject, small[2]]
        with pytest.raises(Rejected) as caught:
            await sink.publish(batch)
        assert caught.value.reasons == {
            1: "8193 bytes with its headers, and the NATS server takes 8192 (max_payload)",
            4: "the subject would have more than 3900 bytes, the most that NATS takes",
        }
        assert await rig.stored() == ids([small[0], small[1], fits, small[2]])
        assert sink.connected


async def test_a_subject_as_long_as_possible_is_stored(rig: JetStreamRig, sink: Caller) -> None:
    batch = messages(0, keys=[b"x" * (3900 - len("expired.0."))])
    await sink.publish(batch)
    assert await rig.stored() == ids(batch)


async def test_what_the_stream_finds_too_large_is_rejected_in_the_brokers_words(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"], max_msg_size=1000)
    async with rig.opened() as sink:
        batch = [*messages(2), *messages(0, keys=[b"k:" + b"x" * 1000])]
        with pytest.raises(Rejected) as caught:
            await sink.publish(batch)
        assert caught.value.reasons == {2: "message size exceeds maximum allowed (error 10054)"}
        assert await rig.stored() == ids(batch[:2])


async def test_a_full_stream_is_retryable(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"], max_msgs=10, discard="new")
        async with rig.opened() as sink:
            with pytest.raises(TakenLater, match="maximum messages exceeded"):
                await sink.publish(messages(11))
            await client.jetstream().purge_stream("EXPIRY")
            await sink.publish(messages(10, first=100))
    assert await rig.stored() == ids(messages(10, first=100))
    await sink.close()


async def test_a_stream_that_is_deleted_is_created_again(rig: JetStreamRig, sink: Caller) -> None:
    async with rig.client() as client:
        await client.jetstream().delete_stream("EXPIRY")
    batch = messages(100)
    with pytest.raises(TakenLater, match="EXPIRY is created again"):
        await sink.publish(batch)
    await sink.publish(batch)
    assert await rig.stored() == ids(batch)


async def test_a_stream_that_is_deleted_is_waited_for_where_the_sink_may_not_create_it(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"])
        async with rig.opened(nats_provision=False) as sink:
            await client.jetstream().delete_stream("EXPIRY")
            with pytest.raises(TakenLater, match="does not exist"):
                await sink.publish(messages(1))
    await sink.close()


async def test_a_subject_that_the_stream_does_not_bind_for_a_moment_is_waited_for(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.0.share"], duplicate_window=120)
        async with rig.opened() as sink:
            batch = messages(0, keys=[b"session:1"])
            with pytest.raises(TakenLater, match="does not bind the message's subject"):
                await sink.publish(batch)
            await client.jetstream().update_stream(name="EXPIRY", subjects=["expired.>"], duplicate_window=120)
            await sink.publish(batch)
        assert await rig.stored() == ids(batch)


async def test_a_subject_that_the_stream_does_not_bind_is_rejected(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.0.share"], duplicate_window=120)
    async with rig.opened(JetStreamLimits(unbound=0.0)) as sink:
        assert len(rig.observed.warnings) == 1
        batch = messages(0, keys=[b"share:1", b"session:1"])
        with pytest.raises(Rejected) as caught:
            await sink.publish(batch)
        reason = "stream EXPIRY does not bind the message's subject; it binds expired.0.share"
        assert caught.value.reasons == {1: reason}
        assert await rig.stored() == ids(batch[:1])


async def test_an_answer_of_another_subscriber_is_no_ack(rig: JetStreamRig) -> None:
    async with rig.client() as client, rig.opened(JetStreamLimits(ack=0.3)) as sink:
        for answer in (b"ok", b"[]", b"{}", b""):

            async def respond(request: object, answer: bytes = answer) -> None:
                await request.respond(answer)  # type: ignore[attr-defined]

            await client.subscribe("expired.>", cb=respond)
        await client.flush()
        await client.jetstream().delete_stream("EXPIRY")
        batch = messages(3)
        publishing = asyncio.create_task(sink.publish(batch))
        await wait_until(lambda: rig.observed.resends)
        assert not publishing.done()
        await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"])
        await publishing
        assert await rig.stored() == ids(batch)
