"""What Redis and its users do in the ledger model: time, expiry by access and by itself, and operations on keys.

Modelled: a key expires when its deadline is past, at any moment from then on; each end and each appearance notifies, in
order; a plain SET over a key with a TTL, and FLUSHDB, notify nothing. Not modelled: eviction (like DEL), MOVE, RESTORE,
COPY, EXPIRE, PERSIST (each like one of SET, DEL, RENAME), failover, a restart without persistence, SWAPDB, a cluster.
"""

from collections.abc import Callable, Iterator
from functools import partial

from tests.model.rules import Bounds
from tests.model.world import (
    DELETED,
    FLUSHED,
    IN_STREAM,
    NO_TTL,
    NOT_PROMISED,
    UNSEEN,
    UNSENT,
    Impossible,
    Life,
    Occurrence,
    State,
    World,
)

Step = tuple[str, bool, Callable[[World], None]]
"""What it is called, whether it happens at last if nothing else does, and what it does."""


def expire(world: World, key: int) -> None:
    """Expire the key if it is past its deadline, unless writes are paused."""
    life = world.keys[key]
    if life is None or life[0] >= world.now or world.paused:
        return
    number = len(world.occurrences)
    promise = world.promise(key, life)
    world.keys[key] = None
    world.ended(key, life[1], number)
    sent = world.notify("x", key, number)
    world.occurrences.append(Occurrence(key, promise, IN_STREAM if sent else UNSENT))
    if world.bounds.past:
        world.last = (*world.last[:key], life[0], *world.last[key + 1 :])


def read(world: World, key: int) -> Life | None:
    """PEXPIRETIME: it expires the key if that is due. None: the key is gone."""
    expire(world, key)
    life = world.keys[key]
    return None if life is None or life[0] < world.now else life


def steps(state: State, bounds: Bounds) -> Iterator[Step]:
    """What may happen next."""
    if state.now < bounds.time:
        yield "tick", True, _tick
    if state.full:
        yield "the outbox has room again", True, _relieve
    if state.paused:
        yield "writes go on", True, _unpause
    else:
        for key, life in enumerate(state.keys):
            if life is not None and life[0] < state.now:
                yield f"Redis expires k{key}", True, partial(expire, key=key)
        if state.user:
            for key in range(bounds.keys):
                yield from _operations(state, bounds, key)
            if bounds.flush and any(state.keys):
                yield "user: FLUSHDB", False, _flush
    if state.faults:
        yield from _faults(state, bounds)


def _operations(state: State, bounds: Bounds, key: int) -> Iterator[Step]:
    now, life = state.now, state.keys[key]
    deadlines = {now + ttl for ttl in bounds.ttls}
    if bounds.absolute >= now:
        deadlines.add(bounds.absolute)
    if bounds.past and life is None and state.last[key] < now:
        deadlines.add(state.last[key])
    for deadline in sorted(deadlines - {0}):
        yield f"user: SET k{key} PXAT {deadline}", False, partial(_set, key=key, deadline=deadline)
    if life is None:
        return
    if bounds.plain and life[0] != NO_TTL:
        yield f"user: SET k{key}", False, partial(_set_plainly, key=key)
    if bounds.delete:
        yield f"user: DEL k{key}", False, partial(_delete, key=key)
    if bounds.rename and key == 0:
        yield "user: RENAME k0 k1", False, _rename


def _faults(state: State, bounds: Bounds) -> Iterator[Step]:
    if bounds.pause and not state.paused:
        yield "CLIENT PAUSE WRITE", False, _pause
    if bounds.full and not state.full:
        yield "the outbox is full", False, _fill
    if bounds.clock_back and state.now > 1:
        yield "the clock is set back by 2", False, _set_back


def _operate(world: World, key: int) -> None:
    """The user accesses a key, which has to be there still."""
    world.user -= 1
    expire(world, key)
    if world.keys[key] is None:
        raise Impossible


def _set(world: World, key: int, deadline: int) -> None:
    world.user -= 1
    expire(world, key)
    world.begun(key, deadline)
    world.notify("p", key)


def _set_plainly(world: World, key: int) -> None:
    _operate(world, key)
    world.begun(key, NO_TTL)


def _delete(world: World, key: int) -> None:
    _operate(world, key)
    life = world.keys[key]
    if life is not None:
        world.keys[key] = None
        world.ended(key, life[1], DELETED if world.notify("d", key, life[1]) else UNSEEN)


def _rename(world: World) -> None:
    expire(world, 1)
    life = world.keys[0]
    _delete(world, 0)
    if life is not None:
        world.begun(1, life[0])
        world.notify("p", 1)


def _flush(world: World) -> None:
    """The ledger goes along, and the lease: every script fails from here on, and the epoch ends.

    That is announced: nothing is promised of what the ledger held.
    """
    world.user -= 1
    for key, life in enumerate(world.keys):
        if life is not None:
            world.ended(key, life[1], FLUSHED)
        world.keys[key] = world.ledger[key] = None
    world.lose(world.stream)
    world.stream.clear()
    world.subscribed = False
    for number in range(len(world.occurrences)):
        world.book(number, promise=NOT_PROMISED)


def _tick(world: World) -> None:
    world.now += 1


def _set_back(world: World) -> None:
    world.faults -= 1
    world.now -= 2


def _pause(world: World) -> None:
    world.faults -= 1
    world.paused = True


def _unpause(world: World) -> None:
    world.paused = False


def _fill(world: World) -> None:
    world.faults -= 1
    world.full = True


def _relieve(world: World) -> None:
    world.full = False
