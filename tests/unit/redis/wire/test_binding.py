"""Whether another server answers at the address: it must not be told what was meant for the former one."""

from bridge.redis.wire.binding import Binding
from tests.support.hand_clock import HandClock


def info(run_id: bytes, uptime: int) -> bytes:
    return b"run_id:%b\r\nuptime_in_seconds:%d" % (run_id, uptime)


async def bound(clock: HandClock, *answers: bytes) -> Binding:
    """Bound to these servers in turn, ten seconds each."""
    binding = Binding(clock)
    for answer in answers:
        await binding.release()
        binding.require(answer)
        clock.now += 10
    return binding


async def test_another_server_has_moved_and_a_restarted_one_has_not() -> None:
    clock = HandClock()
    assert not (await bound(clock, info(b"a", 100))).has_moved(), "the first one"
    assert not (await bound(clock, info(b"a", 100), info(b"a", 110))).has_moved(), "the same"
    assert not (await bound(clock, info(b"a", 100), info(b"a2", 3))).has_moved(), "a restart"
    assert (await bound(clock, info(b"a", 100), info(b"b", 500))).has_moved()


async def test_that_it_has_moved_is_remembered_until_somebody_asks() -> None:
    clock = HandClock()
    binding = await bound(clock, info(b"a", 100), info(b"b", 500), info(b"b", 510))
    assert binding.has_moved(), "another connection had reached it first"
    assert not binding.has_moved()
    await binding.release()
    binding.require(info(b"b", 530))
    assert not binding.has_moved()
