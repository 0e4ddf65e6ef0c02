"""Delivery, between a source and a sink that do as the tests say."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bridge.contracts import Entry, Message
from bridge.errors import NotConnected, Refused
from bridge.expiration import FieldExpiration, GapRecord, Via
from bridge.telemetry.events import BROKER
from tests.support.delivery import QUICK, SMALL, Answer, Gone, Never, Rig, entry, refuse, running
from tests.support.servers import wait_until

AN_HOUR = 3_600.0


async def test_what_is_acked_is_settled_and_counted_with_its_lag() -> None:
    rig = Rig(entry(1, b"a", b"b"), entry(2, b"c"))

    await rig.drained()

    assert rig.sink.ids == ["1-0", "1-1", "2-0"]
    assert rig.settled == [b"7-1", b"7-2"]
    assert rig.metric("bridge_published_messages_total") == 3
    assert rig.metric("bridge_lag_seconds_sum") == pytest.approx(1.5)
    assert rig.metric("bridge_in_flight_messages") == 0


async def test_the_age_of_the_outbox_is_that_of_its_oldest_entry_until_that_is_settled() -> None:
    gap = Entry(b"7-2", [GapRecord("g", "node", 900, 1300, "start", None, 0, 0)])
    rig, age = Rig(entry(1, b"a"), gap), "bridge_outbox_oldest_age_seconds"
    rig.sink.gate.clear()
    assert rig.metric(age) == 0
    async with running(rig):
        await wait_until(lambda: rig.sink.under_way)
        assert rig.metric(age) == pytest.approx(0.499)
        rig.now = 3_601_001.0
        assert rig.metric(age) == pytest.approx(3_600)  # since the expiration was claimed, not the gap record
        rig.source.settle_errors = [NotConnected("gone")] * 1_000
        rig.sink.gate.set()
        await wait_until(lambda: len(rig.source.settle_errors) < 990)
        assert rig.metric("bridge_published_messages_total") == 2
        assert rig.metric(age) == pytest.approx(3_600)  # acked, but not out of the outbox
        rig.source.settle_errors.clear()
        await wait_until(lambda: rig.metric(age) == 0)
    assert rig.settled == [b"7-1", b"7-2"]


async def test_a_gap_record_that_waits_alone_has_an_age_too() -> None:
    rig = Rig(Entry(b"7-2", [GapRecord("g", "node", 900, 1300, "start", None, 0, 0)]))
    rig.sink.gate.clear()
    async with running(rig):
        await wait_until(lambda: rig.sink.under_way)
        assert rig.metric("bridge_outbox_oldest_age_seconds") == pytest.approx(0.2)


async def test_nothing_is_settled_before_its_ack() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.gate.clear()

    async with running(rig):
        await wait_until(lambda: rig.sink.under_way)
        assert rig.settled == []
        rig.sink.gate.set()
        await wait_until(lambda: rig.settled == [b"7-1"])


async def test_what_is_acked_a_moment_after_others_were_settled_is_settled_together() -> None:
    rig = Rig(entry(1, b"a"), limits=replace(QUICK, batch=1, settle_gather=AN_HOUR))
    async with running(rig):
        await wait_until(lambda: rig.settled == [b"7-1"])  # at once: nothing was settled a moment before
        rig.source.entries += [entry(2, b"b"), entry(3, b"c")]
        await wait_until(lambda: rig.metric("bridge_published_messages_total") == 3)
        assert rig.source.settlings == 1
        rig.clock.gathered()
        await wait_until(lambda: rig.settled == [b"7-1", b"7-2", b"7-3"])
    assert rig.source.settlings == 2


async def test_what_is_acked_when_nothing_was_settled_for_a_while_waits_for_no_timer() -> None:
    rig = Rig(entry(1, b"a"), limits=replace(QUICK, settle_gather=AN_HOUR))
    async with running(rig):
        await wait_until(lambda: rig.settled == [b"7-1"])
        rig.clock.passed = AN_HOUR
        rig.source.entries += [entry(2, b"b")]
        await wait_until(lambda: rig.settled == [b"7-1", b"7-2"])


async def test_what_was_not_taken_is_sent_again_under_the_same_ids() -> None:
    rig = Rig(entry(1, b"a", b"b"))
    rig.sink.answer = lambda batch: refuse(len(batch)) if len(rig.sink.ids) <= 4 else None

    await rig.drained()

    assert sorted(rig.sink.ids) == ["1-0"] * 3 + ["1-1"] * 3
    assert rig.settled == [b"7-1"]
    assert rig.metric("bridge_retried_messages_total") == 4


async def test_a_lost_sink_is_opened_again_once_for_all_batches_under_way() -> None:
    rig = Rig(entry(1, b"a"), entry(2, b"a"), entry(3, b"b"))
    failing = True
    rig.sink.answer = lambda _: Gone("gone") if failing else None

    async with running(rig):
        await wait_until(lambda: len(rig.sink.sessions) >= 3)
        failing = False
        await wait_until(lambda: sorted(rig.settled) == [b"7-1", b"7-2", b"7-3"])


async def test_a_sink_that_cannot_be_reached_is_tried_again_and_readiness_says_so() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.connect_errors = [NotConnected("nobody there")] * 3

    async with running(rig):
        await wait_until(lambda: rig.settled)

    assert len(rig.sink.sessions) == 1
    assert BROKER not in rig.telemetry.health.reasons
    assert len(rig.clock.slept) == 3


async def test_a_session_that_ends_while_nothing_is_published_is_followed_by_another() -> None:
    rig = Rig()

    async with running(rig):
        await wait_until(lambda: rig.sink.sessions)
        rig.sink.sessions[0].lose()
        await wait_until(lambda: len(rig.sink.sessions) == 2)
        assert rig.sink.sessions[0].closed
        await wait_until(lambda: BROKER not in rig.telemetry.health.reasons)


async def test_a_sink_that_never_opened_and_refuses_ends_delivery() -> None:
    rig = Rig()
    rig.sink.connect_errors = [Refused("wrong password")]

    with pytest.raises(Refused, match="wrong password"):
        await rig.drained()


async def test_a_sink_that_served_and_refuses_is_tried_again() -> None:
    rig = Rig(entry(1, b"a"))

    def lose(_: Sequence[Message]) -> Answer:
        rig.sink.answer = lambda _: None
        rig.sink.connect_errors = [Refused("password expired")] * 2
        return Gone("gone")

    rig.sink.answer = lose

    await rig.drained()

    assert rig.settled == [b"7-1"]
    assert len(rig.sink.sessions) == 2


async def test_a_publish_that_is_refused_for_good_ends_delivery() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.answer = lambda _: Refused("stdout is closed")

    with pytest.raises(Refused, match="stdout is closed"):
        await rig.drained()

    assert rig.settled == []


async def test_what_ends_delivery_ends_it_also_while_the_sink_is_being_opened_again() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.gate.clear()

    def answer(batch: Sequence[Message]) -> Answer:
        if batch[0].key == b"b":
            return Refused("cannot go on")
        rig.sink.connect_errors = [NotConnected("nobody there")] * 1_000_000
        return Gone("gone")

    rig.sink.answer = answer
    async with running(rig) as task:
        await wait_until(lambda: rig.sink.under_way)
        rig.source.entries.append(entry(2, b"b"))
        await wait_until(lambda: len(rig.sink.under_way) == 2)
        rig.sink.gate.set()
        with pytest.raises(Refused, match="cannot go on"):
            async with asyncio.timeout(10):
                await task


async def test_an_unexpected_error_of_a_sink_ends_delivery() -> None:
    rig = Rig(entry(1, b"a"))

    def explode(_: Sequence[Message]) -> None:
        raise ZeroDivisionError

    rig.sink.answer = explode

    with pytest.raises(ZeroDivisionError):
        await rig.drained()


async def test_a_rejected_message_is_settled_as_a_dead_letter_and_stops_nobody_else() -> None:
    rig = Rig(entry(1, b"a", b"b", b"c"), entry(2, b"d"))
    rig.sink.answer = lambda batch: Never({1: "too large"}) if len(batch) > 1 else None

    await rig.drained()

    dead = [letter for settlement in rig.source.settled for letter in settlement.dead]
    assert [(letter.event.key, letter.reason) for letter in dead] == [(b"b", "too large")]
    assert sorted(rig.settled) == [b"7-1", b"7-2"]
    assert rig.metric("bridge_rejected_messages_total") == 1
    assert rig.metric("bridge_published_messages_total") == 3


async def test_messages_of_one_key_are_sent_one_after_the_other() -> None:
    rig = Rig(*(entry(n, b"same", b"other-%d" % n) for n in range(20)))

    await rig.drained()  # the sink asserts that no key is under way twice

    assert [i for i in rig.sink.ids if i.endswith("-0")] == [f"{n}-0" for n in range(20)]


async def test_fields_of_one_hash_are_sent_side_by_side_and_those_of_one_field_one_after_the_other() -> None:
    names = [b"a", b"b", b"c", b"a"]
    fields = [FieldExpiration(f"1-{n}", b"hash", name, 500, 501, Via.SWEEP) for n, name in enumerate(names)]
    rig = Rig(Entry(b"7-1", fields), entry(2, b"hash"))
    rig.sink.gate.clear()

    async with running(rig):
        await wait_until(lambda: sum(map(len, rig.sink.under_way)) == 4)
        rig.sink.gate.set()
        await wait_until(lambda: sorted(rig.settled) == [b"7-1", b"7-2"])
    assert sorted(rig.sink.ids) == ["1-0", "1-1", "1-2", "1-3", "2-0"]
    assert rig.sink.ids[-1] == "1-3"  # it waited for the other one of its field


async def test_a_retry_keeps_the_order_of_a_key() -> None:
    rig = Rig(*(entry(n, b"same") for n in range(5)))
    answers: list[Answer] = [None, refuse(1), Gone("gone"), None, None, None, None]
    rig.sink.answer = lambda _: answers.pop(0)

    await rig.drained()

    assert rig.sink.ids == ["0-0", "1-0", "1-0", "1-0", "2-0", "3-0", "4-0"]


async def test_what_is_under_way_is_not_taken_up_again_when_the_outbox_is_read_from_its_beginning() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.gate.clear()

    async with running(rig):
        await wait_until(lambda: rig.sink.under_way)
        rig.source.entries.append(entry(2, b"b"))
        rig.source.reread()
        rig.sink.gate.set()
        await wait_until(lambda: sorted(rig.settled) == [b"7-1", b"7-2"])

    assert sorted(rig.sink.ids) == ["1-0", "2-0"]


@pytest.mark.parametrize(("key_bytes", "most"), [(4, 40), (4_000, 3)])
async def test_memory_is_bounded_in_messages_and_in_bytes_while_the_broker_stands_still(
    key_bytes: int, most: int
) -> None:
    rig = Rig(*(entry(n, (b"%d-" % n).ljust(key_bytes, b"k")) for n in range(200)), limits=SMALL)
    rig.sink.gate.clear()

    async with running(rig):
        await wait_until(lambda: sum(map(len, rig.sink.under_way)) >= min(most, 2))
        for _ in range(200):
            await asyncio.sleep(0)
        assert rig.sink.most_under_way <= most
        rig.sink.gate.set()
        await wait_until(lambda: len(rig.settled) == 200)

    assert rig.sink.most_under_way <= most


@pytest.mark.parametrize(("key_bytes", "most"), [(4, 40), (4_000, 3)])
async def test_memory_is_bounded_while_the_outbox_is_read_and_cannot_be_settled(key_bytes: int, most: int) -> None:
    entries = [entry(n, *((b"%d-%d-" % (n, i)).ljust(key_bytes, b"k") for i in range(2))) for n in range(200)]
    rig = Rig(*entries, limits=replace(SMALL, read_entries=5))
    rig.source.settle_errors = [NotConnected("gone")] * 1_000_000

    async with running(rig):
        await wait_until(lambda: len(rig.clock.slept) > 200)
        acked = len(rig.sink.ids)
        assert most < acked <= 2 * most + 10  # what was under way when it became too much was acked, too
        assert len(rig.delivery._under_way) * 2 <= 2 * most + 2 * 5 * 2  # and the read that waits
        tried = len(rig.clock.slept)
        await wait_until(lambda: len(rig.clock.slept) > tried + 200)
        assert len(rig.sink.ids) == acked
        rig.source.settle_errors.clear()
        await wait_until(lambda: len(rig.settled) == 200)

    assert sorted(rig.sink.ids) == sorted(f"{n}-{i}" for n in range(200) for i in range(2))
    assert rig.metric("bridge_in_flight_messages") == 0


async def test_a_message_larger_than_the_bound_is_sent_all_the_same() -> None:
    rig = Rig(entry(1, b"a"), entry(2, b"b"), limits=replace(QUICK, in_flight_bytes=10))

    await rig.drained()

    assert rig.settled == [b"7-1", b"7-2"]


async def test_a_source_that_does_not_answer_is_asked_again() -> None:
    rig = Rig(entry(1, b"a"))
    rig.source.read_errors = [NotConnected("gone"), Refused("no rights")]
    rig.source.settle_errors = [NotConnected("gone"), Refused("no rights")]

    await rig.drained()

    assert rig.settled == [b"7-1"]


async def test_a_drain_ends_also_while_the_sink_cannot_be_reached_if_nothing_waits() -> None:
    rig = Rig()
    rig.sink.connect_errors = [NotConnected("nobody there")] * 1_000_000

    await rig.drained()

    assert rig.settled == []
