"""What is stuck waits by itself: it stops nothing else, repeats nothing, and is given up only while others pass."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
import structlog

from bridge.cloudevents import Encoder
from bridge.contracts import Message, Order
from bridge.delivery.aside import Aside
from bridge.delivery.context import Context
from bridge.delivery.flight import Flight, Tower
from bridge.delivery.parcels import Load, Parcel, Progress
from bridge.delivery.stuck import StuckRoom
from bridge.errors import NotConnected
from bridge.limits import DeliveryLimits
from bridge.telemetry.events import STUCK, Telemetry
from tests.support.delivery import QUICK, SMALL, Alone, Answer, Gone, Rig, entry, refuse, refuse_keys, running
from tests.support.hand_clock import HandClock
from tests.support.servers import wait_until


def attempts(rig: Rig) -> Counter[str]:
    return Counter(rig.sink.ids)


async def test_what_is_acked_is_sent_once_however_long_its_neighbour_is_refused() -> None:
    rig = Rig(entry(1, b"full", *(b"k%d" % n for n in range(100))))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full") if len(rig.sink.published) < 20 else None

    await rig.drained()

    assert attempts(rig).pop("1-0") == 20
    assert set(attempts(rig).values()) == {1, 20}
    assert rig.settled == [b"7-1"]


async def test_other_keys_and_entries_pass_what_is_stuck_and_its_own_key_waits_in_order() -> None:
    rig = Rig(*(entry(n, b"full", b"k%d" % n) for n in range(5)))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        await wait_until(lambda: all(attempts(rig)[f"{n}-1"] for n in range(5)))
        await wait_until(lambda: attempts(rig)["0-0"] > 3)
        assert not any(attempts(rig)[f"{n}-0"] for n in range(1, 5))
        assert rig.settled == []
        tried = len(rig.sink.ids)
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(rig.settled) == 5)

    assert list(dict.fromkeys(id_ for id_ in rig.sink.ids[tried:] if id_.endswith("-0")))[-4:] == [
        f"{n}-0" for n in range(1, 5)
    ]
    assert all(attempts(rig)[f"{n}-1"] == 1 for n in range(5))


async def test_more_stuck_messages_than_may_be_in_flight_do_not_stop_the_others() -> None:
    rig = Rig(*(entry(n, b"full%d" % n, b"k%d" % n) for n in range(200)), limits=SMALL)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        await wait_until(lambda: sum(attempts(rig)[f"{n}-1"] for n in range(200)) == 200)
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(rig.settled) == 200)


async def test_what_is_stuck_beyond_its_room_is_set_aside_and_goes_on_stopping_nothing_else() -> None:
    limits = replace(SMALL, stuck=20)
    rig = Rig(*(entry(n, b"full%d" % n, b"k%d" % n) for n in range(200)), limits=limits)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        await wait_until(lambda: sum(attempts(rig)[f"{n}-1"] for n in range(200)) == 200)
        await wait_until(lambda: attempts(rig)["0-0"] > 5)
        assert sum(attempts(rig)[f"{n}-0"] > 1 for n in range(200)) <= 20, "what was set aside is not tried again"
        assert rig.settled == []
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(rig.settled) == 200)

    assert all(attempts(rig)[f"{n}-1"] == 1 for n in range(200)), "what is acked is never sent again"
    assert set(rig.source.reread_ids) <= {b"7-%d" % n for n in range(200)}
    assert rig.metric("bridge_in_flight_messages") == 0


async def test_while_all_is_full_of_what_is_stuck_it_is_given_up_as_others_are_acked() -> None:
    limits = replace(SMALL, stuck=20)
    rig = Rig(*(entry(n, b"full%d" % n) for n in range(100)), limits=limits, stuck_seconds=0.1)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        for number in range(100, 2000):
            rig.source.entries.append(entry(number, b"other%d" % number))
            await asyncio.sleep(0.01)
            if len({id_ for id_ in rig.settled if int(id_[2:]) < 100}) == 100:
                break

    dead = [letter for settlement in rig.source.settled for letter in settlement.dead]
    assert len(dead) == 100
    assert all(letter.event.key.startswith(b"full") for letter in dead)


async def test_messages_of_one_key_keep_their_order_though_some_are_set_aside() -> None:
    limits = replace(SMALL, stuck=5)
    entries = [entry(n, b"full%d" % (n % 30), b"k%d" % n, b"full%d" % (n % 7)) for n in range(60)]
    rig = Rig(*entries, limits=limits)
    chance = random.Random(7)
    taken = list[str]()

    def some(batch: Sequence[Message]) -> Answer:
        refused = {
            index: "full"
            for index, message in enumerate(batch)
            if message.key.startswith(b"full") and chance.random() < 0.6
        }
        taken.extend(message.id for index, message in enumerate(batch) if index not in refused)
        return refused

    rig.sink.answer = some
    async with running(rig):
        await wait_until(lambda: len(rig.settled) == 60)

    assert rig.source.reread_ids, "some were set aside"
    assert len(taken) == len(set(taken)) == 180
    lives: dict[bytes, list[tuple[int, int]]] = {}
    keys = {event.id: event.key for one in entries for event in one.events}
    for id_ in taken:
        number, _, index = id_.partition("-")
        lives.setdefault(keys[id_], []).append((int(number), int(index)))
    assert all(places == sorted(places) for places in lives.values())


async def test_what_was_set_aside_and_is_gone_from_the_outbox_holds_up_no_later_message_of_its_key() -> None:
    rig = Rig(*(entry(n, b"full%d" % n) for n in range(100)), limits=replace(SMALL, stuck=2))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        await wait_until(lambda: len(attempts(rig)) == 100)
        sent = len(rig.sink.ids)
        # Another bridge has published them; then the keys expired once more.
        rig.source.entries[:] = [entry(100 + n, b"full%d" % n) for n in range(100)]
        rig.source.reread()
        rig.sink.answer = lambda _: None
        await wait_until(lambda: {b"7-%d" % n for n in range(100, 200)} <= set(rig.settled))

    assert len(set(rig.sink.ids[sent:])) < 150, "what is gone is not published"


async def test_what_was_set_aside_of_a_shard_that_another_bridge_has_now_does_not_stop_reading_for_good() -> None:
    entries = [replace(entry(n, b"full%d" % n), shard=1) for n in range(40)]
    rig = Rig(*entries, limits=replace(SMALL, stuck=5, aside=30))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")
    async with running(rig):
        await wait_until(lambda: rig.delivery._publisher.held.aside.full)
        rig.source.elsewhere = {1}
        rig.source.entries += [entry(n, b"k%d" % n) for n in range(100, 200)]
        await wait_until(lambda: len(rig.settled) == 100)
        rig.source.elsewhere.clear()
        rig.source.reread()
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(set(rig.settled)) == 140)


async def test_what_was_set_aside_of_a_shard_that_another_bridge_has_now_is_not_called_stuck_for_ever() -> None:
    entries = [replace(entry(n, b"full%d" % n), shard=1) for n in range(40)]
    rig = Rig(*entries, limits=replace(SMALL, stuck=5, late=0.1))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")
    async with running(rig):
        await wait_until(lambda: rig.metric("bridge_stuck_messages") == 40)
        rig.source.elsewhere = {1}
        rig.sink.answer = lambda _: None
        await wait_until(lambda: rig.metric("bridge_stuck_messages") == 0)


async def test_a_bridge_ends_though_something_was_set_aside_of_a_shard_that_another_bridge_has_now() -> None:
    entries = [replace(entry(n, b"full%d" % n), shard=1) for n in range(40)]
    rig = Rig(*entries, limits=replace(SMALL, stuck=5))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")
    async with running(rig) as task:
        await wait_until(lambda: len(rig.delivery._publisher.held.aside) > 30)
        rig.source.elsewhere = {1}
        rig.sink.answer = lambda _: None
        rig.source.draining = True
        await wait_until(task.done)
    assert len(rig.settled) < 40


async def test_what_was_set_aside_of_an_outbox_that_cannot_be_read_holds_up_no_other_outbox() -> None:
    entries = [replace(entry(n, b"k%d" % n), shard=n % 2) for n in range(60)]
    rig = Rig(*entries, limits=replace(SMALL, stuck=4))
    rig.sink.answer = lambda batch: refuse(len(batch))
    rig.source.unreadable = {0}
    async with running(rig):
        await wait_until(lambda: len(rig.delivery._publisher.held.aside) > 50)
        rig.sink.answer = lambda _: None
        await wait_until(lambda: sum(int(id_.partition(b"-")[2]) % 2 for id_ in rig.settled) == 30)
        rig.source.unreadable.clear()
        await wait_until(lambda: len(rig.settled) == 60)


async def test_what_was_set_aside_and_is_not_here_for_a_moment_is_not_settled_before_it_was_published() -> None:
    entries = [entry(n, b"full%d" % n) for n in range(30)]
    rig = Rig(*entries, limits=replace(SMALL, stuck=2))
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")
    acked = set[str]()

    def take(batch: Sequence[Message]) -> None:
        acked.update(message.id for message in batch)

    async with running(rig):
        await wait_until(lambda: len(attempts(rig)) == 30)
        rig.source.entries.clear()  # another bridge has the shard
        rig.source.settle_errors = [NotConnected("gone")] * 100_000
        rig.sink.answer = take
        await wait_until(lambda: len(rig.delivery._publisher.held.aside) == 0)
        rig.source.entries += entries  # and gives it back, as it was
        rig.source.reread()
        rig.source.settle_errors.clear()
        await wait_until(lambda: len(set(rig.settled)) == 30)

    assert len(acked) == 30


def test_an_entry_that_was_read_again_may_be_set_aside_beside_its_former_reading() -> None:
    _, _, parcels = room_and_clock()
    aside, again = Aside(DeliveryLimits()), Progress(entry(1, *(b"k%d" % n for n in range(100))))
    aside.add(parcels[0], "all")
    aside.add(parcels[1]._replace(progress=again), "all")
    assert aside.first() is parcels[0].progress
    assert aside.take(parcels[0].progress) == {0: "all"}
    assert aside.first() is again
    assert aside.take(again) == {1: "all"}
    assert (len(aside), aside.first()) == (0, None)


@pytest.mark.parametrize("answered", [True, False])
async def test_reading_stops_though_all_that_is_read_waits_behind_one_message(*, answered: bool) -> None:
    limits = replace(SMALL, stuck=20, aside=30, read_entries=5)
    rig = Rig(*(entry(n, b"full") for n in range(300)), limits=limits)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full") if answered else None
    rig.sink.silent = lambda _: not answered

    async with running(rig):
        await asyncio.sleep(0.3)
        assert rig.source.read_so_far <= 20 + 30 + SMALL.in_flight + 5
        rig.sink.answer = lambda _: None
        rig.sink.silent = lambda _: False
        rig.sink.speak.set()
        await wait_until(lambda: len(rig.settled) == 300)


async def test_reading_stops_while_there_is_no_room_for_more_that_is_set_aside_and_goes_on_after_it() -> None:
    limits = replace(SMALL, stuck=20, aside=30)
    rig = Rig(*(entry(n, b"full%d" % n) for n in range(300)), limits=limits)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        await wait_until(lambda: attempts(rig)["0-0"] > 5)
        assert len(attempts(rig)) <= 20 + 30 + 2 * SMALL.in_flight
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(rig.settled) == 300)


async def test_what_was_acked_before_the_session_ended_is_not_sent_on_the_next_one() -> None:
    rig = Rig(entry(1, b"a", b"b", b"c"))
    rig.sink.answer = lambda batch: Gone("gone", acked=[0, 2]) if len(batch) == 3 else None

    await rig.drained()

    assert rig.sink.ids == ["1-0", "1-1", "1-2", "1-1"]
    assert rig.settled == [b"7-1"]


async def test_what_is_without_an_answer_takes_no_room_in_flight_and_a_late_ack_counts() -> None:
    rig = Rig(*(entry(n, b"silent%d" % n, b"k%d" % n) for n in range(100)), limits=replace(SMALL, late=0.05))
    rig.sink.silent = lambda message: message.key.startswith(b"silent")

    async with running(rig):
        await wait_until(lambda: sum(attempts(rig)[f"{n}-1"] for n in range(100)) == 100)
        assert rig.settled == []
        rig.sink.speak.set()
        await wait_until(lambda: len(rig.settled) == 100)

    assert set(attempts(rig).values()) == {1}
    assert rig.metric("bridge_in_flight_messages") == 0


async def test_what_is_refused_for_long_while_others_are_acked_becomes_a_dead_letter_with_the_reason() -> None:
    rig = Rig(entry(1, b"full", b"k"), stuck_seconds=0.2)
    rig.sink.answer = lambda batch: refuse_keys(batch, b"full")

    async with running(rig):
        for number in range(2, 1000):
            rig.source.entries.append(entry(number, b"other%d" % number))
            await asyncio.sleep(0.01)
            if b"7-1" in rig.settled:
                break

    (settlement,) = [settlement for settlement in rig.source.settled if settlement.id == b"7-1"]
    (letter,) = settlement.dead
    assert letter.event.key == b"full"
    assert letter.reason == "full: for 0.2 s, while the broker took others"
    assert rig.metric("bridge_rejected_messages_total") == 1


@pytest.mark.parametrize("stuck_seconds", [0.0, 0.05])
async def test_a_broker_that_takes_nothing_is_an_outage_and_kills_nothing(stuck_seconds: float) -> None:
    rig = Rig(entry(1, b"a"), entry(2, b"b"), stuck_seconds=stuck_seconds)
    rig.sink.answer = lambda batch: refuse(len(batch))

    async with running(rig):
        await wait_until(lambda: attempts(rig)["1-0"] > 8)
        await asyncio.sleep(0.2)
        rig.sink.answer = lambda _: None
        await wait_until(lambda: len(rig.settled) == 2)

    assert not any(settlement.dead for settlement in rig.source.settled)


def room_and_clock() -> tuple[StuckRoom, HandClock, list[Parcel]]:
    """With some messages of one entry."""
    clock = HandClock()
    context = Context(clock, DeliveryLimits(), Telemetry(), clock.monotonic)
    one = entry(1, *(b"k%d" % n for n in range(100)))
    encoder = Encoder("/redis", 0, "structured")
    events = enumerate(one.events)
    progress = Progress(one)
    parcels = [Parcel(encoder.encode(event), event, progress, index) for index, event in events]
    return StuckRoom(context, lambda _: "all"), clock, parcels


def tried(room: StuckRoom, clock: HandClock, parcels: list[Parcel], seconds: float) -> int:
    """So much time passes, and all is refused that is tried; how often that is."""
    end, tries = clock.now + seconds, 0
    while (due := room.until_due()) is not None and clock.now + due <= end:
        clock.now += due
        again = room.take_due(len(parcels))
        tries += len(again)
        for parcel in again:
            room.refused(parcel, "busy")
    clock.now = end
    return tries


async def test_what_got_stuck_in_an_outage_is_tried_again_as_soon_as_anything_is_acked() -> None:
    room, clock, parcels = room_and_clock()
    room.flows()
    for parcel in parcels:
        room.refused(parcel, "busy")
    tried(room, clock, parcels, 600.0)
    room.flows()
    assert room.until_due() == 0
    assert len(room.take_due(1000)) == len(parcels)
    clock.now += 60
    assert room.take_due(1000) == [], "none of them twice"


async def test_what_is_refused_for_other_reasons_than_an_outage_keeps_its_pauses_however_seldom_anything_is_acked() -> (
    None
):
    room, clock, parcels = room_and_clock()
    room.flows()
    for parcel in parcels:
        room.refused(parcel, "full")
    tries = 0
    for _ in range(100):
        room.flows()
        tries += tried(room, clock, parcels, 10.0)
    most = DeliveryLimits().stuck_retry_most
    assert tries <= len(parcels) * (20 + 1000.0 / (most / 2))


async def test_however_many_are_stuck_for_too_long_a_look_gives_up_only_so_many_of_them_the_oldest_first() -> None:
    room, clock, parcels = room_and_clock()
    room.flows()
    for parcel in parcels:
        room.refused(parcel, "full")
    clock.now += 10
    room.flows()
    taken = [[stuck.parcel for stuck in room.take_given_up(5, 30)] for _ in range(5)]
    assert [len(some) for some in taken] == [30, 30, 30, 10, 0]
    assert [parcel for some in taken for parcel in some] == parcels


def test_what_is_given_up_costs_a_flight_one_pass_over_its_messages() -> None:
    class Counted(tuple[str, ...]):
        """Ids that count how often they are looked for."""

        __slots__ = ()
        looks = 0

        def __contains__(self, id_: object) -> bool:
            Counted.looks += 1
            return super().__contains__(id_)

    _, _, parcels = room_and_clock()
    flight = Flight(Load.of(parcels), cast("Tower", None), 0.0)
    flight.give_up(Counted(parcel.message.id for parcel in parcels[:60]))
    assert (flight.left, Counted.looks) == (40, 100)


async def test_readiness_metrics_and_one_event_say_what_is_stuck_and_that_it_is_no_longer() -> None:
    with structlog.testing.capture_logs() as logs:
        rig = Rig(entry(1, b"full:secret"), limits=replace(QUICK, late=0.05))
        rig.sink.answer = lambda batch: refuse_keys(batch, b"full")
        async with running(rig):
            await wait_until(lambda: STUCK in rig.telemetry.health.reasons)
            assert "1 on topic-of-keys for" in rig.telemetry.health.reasons[STUCK]
            assert rig.metric("bridge_stuck_messages") == 1
            assert (rig.metric("bridge_stuck_oldest_age_seconds") or 0) >= 0.05
            await asyncio.sleep(0.1)
            rig.sink.answer = lambda _: None
            await wait_until(lambda: STUCK not in rig.telemetry.health.reasons)
            assert rig.metric("bridge_stuck_messages") == 0
    said = [line for line in logs if line["event"].startswith("messages.") and "stuck" in line["event"]]
    assert [line["event"] for line in said] == ["messages.stuck", "messages.unstuck"]
    assert said[0]["count"] == 1
    assert "secret" not in str(logs)


async def test_a_sink_that_needs_the_order_of_a_shard_gets_its_batches_one_by_one() -> None:
    limits = DeliveryLimits(watch=QUICK.watch, batch=4)
    entries = [replace(entry(n, b"same", b"k%d" % n), shard=n % 2) for n in range(20)]
    rig = Rig(*entries, limits=limits, order=Order.SHARD)
    rig.sink.answer = lambda batch: refuse(len(batch)) if len(rig.sink.published) % 3 == 1 else None

    await rig.drained()

    for shard in range(2):
        ids = [id_ for id_ in dict.fromkeys(rig.sink.ids) if int(id_.split("-")[0]) % 2 == shard]
        assert ids == [f"{n}-{i}" for n in range(shard, 20, 2) for i in range(2)]
    assert len(rig.settled) == 20


async def test_where_a_shard_keeps_its_order_what_one_stream_alone_refuses_is_given_up_too() -> None:
    limits = replace(QUICK, batch=1)
    rig = Rig(*(entry(n, b"k%d" % n) for n in range(3)), limits=limits, stuck_seconds=0.05, order=Order.SHARD)
    rig.sink.answer = lambda batch: Alone({0: "of another type"}) if batch[0].key == b"k1" else None

    await rig.drained()

    (letter,) = [letter for settlement in rig.source.settled for letter in settlement.dead]
    assert letter.reason.startswith("of another type: for ")
    assert list(dict.fromkeys(rig.sink.ids)) == ["0-0", "1-0", "2-0"]


class NewestFirst(asyncio.SelectorEventLoop):
    """Of what is ready, the newest goes first: asyncio does not promise any order of tasks."""

    def _run_once(self) -> None:
        self._ready.reverse()  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def test_the_order_of_a_shard_does_not_depend_on_which_task_runs_first() -> None:
    async def deliver() -> list[str]:
        limits = DeliveryLimits(watch=QUICK.watch, batch=1)
        rig = Rig(*(entry(n, b"k%d" % n) for n in range(10)), limits=limits, order=Order.SHARD)
        await rig.drained()
        return rig.sink.ids

    with asyncio.Runner(loop_factory=NewestFirst) as runner:
        assert runner.run(deliver()) == [f"{n}-0" for n in range(10)]


async def test_sessions_that_end_before_anything_is_acked_are_made_ever_more_slowly() -> None:
    rig = Rig(entry(1, b"a"))
    rig.sink.answer = lambda _: Gone("gone") if len(rig.sink.published) < 6 else None

    await rig.drained()

    pauses = rig.clock.slept
    assert len(pauses) >= 5
    assert pauses[4] > 4 * pauses[0]
