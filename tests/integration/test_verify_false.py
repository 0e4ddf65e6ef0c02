"""`expiry-bridge verify`: what ought not to have come is told from what ought to, each kind for its reason."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any, Self

import pytest
from nats.aio.client import Client

from bridge.cloudevents import Encoder
from bridge.expiration import Expiration, Identity, Via
from tests.integration.oracle import LONG, PATIENCE, SUBJECT, World, client_of, deadline_of, no_bridge_any_more
from tests.support.harness.user import passed
from tests.support.redis.commands import user_of
from tests.support.servers import NatsServer, RedisServer

pytestmark = pytest.mark.unmeasured


@pytest.fixture
async def world(one_redis: RedisServer, nats_server: NatsServer) -> AsyncIterator[World]:
    """With JetStream, and no bridge yet."""
    async with user_of(one_redis) as user:
        yield World({"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_NATS_URL": nats_server.url}, user)


def announced(key: bytes, deadline_ms: int, /, **changed: Any) -> bytes:  # noqa: ANN401 - of any field
    """The body of the message that a bridge would publish of the key; or one with some fields `changed`."""
    id_ = Identity("/redis", 0).of_deadline(key, deadline_ms)
    event = {"id": id_, "key": key, "deadline_ms": deadline_ms, "observed_ms": deadline_ms + 1, "via": Via.NOTIFICATION}
    return Encoder("/redis", 0, "structured").encode(Expiration(**{**event, **changed})).body


class Forger:
    """Publishes past the bridge, for the keys of a verification that no bridge takes part in."""

    def __init__(self, client: Client, world: World) -> None:
        self._jetstream = client.jetstream()
        self._user = world.user
        self._world = world

    async def deadline_of(self, key: bytes) -> int:
        return await deadline_of(self._user, key)

    async def deadlines(self) -> dict[bytes, int]:
        """All keys of the verification, the first one to expire first; the last one is the control that is put off."""
        keys = await self._world.planted(41)
        pipeline = self._user.pipeline()
        for key in keys:
            pipeline.execute_command("PEXPIRETIME", key)
        return dict(sorted(zip(keys, await pipeline.execute(), strict=True), key=itemgetter(1)))

    async def tell(self, deadlines: Mapping[bytes, int]) -> None:
        """Announce these keys, as a bridge would, when their time is past.

        A verification that gets all that it waits for ends then; what was published before, it has read by that time.
        """
        await passed(self._user, max(deadlines.values()))
        await asyncio.gather(*(self.publish(announced(key, deadline)) for key, deadline in deadlines.items()))

    async def publish(self, body: bytes, **headers: str) -> None:
        await self._jetstream.publish(SUBJECT, body, headers=headers or None)

    @classmethod
    @asynccontextmanager
    async def of(cls, world: World) -> AsyncIterator[Self]:
        async with client_of(world) as client:
            yield cls(client, world)


async def test_messages_that_are_forged_are_false_each_for_its_reason(world: World) -> None:
    await no_bridge_any_more(world)
    async with Forger.of(world) as forger, world.verification(*LONG) as verification:
        deadlines = await forger.deadlines()
        *_, other_id, later, early, put_off = deadlines
        del deadlines[put_off]
        deadline_ms = deadlines[early]
        # One says so itself, one lies.
        await forger.publish(announced(early, deadline_ms, observed_ms=deadline_ms - 1))
        await forger.publish(announced(early, deadline_ms))
        await forger.publish(announced(later, deadlines[later] + 1))
        await forger.publish(announced(other_id, deadlines[other_id], id="0" * 32))
        for strange in (b"999999", b"1 ", b"+1", b"007", b""):
            await forger.publish(announced(early.rpartition(b":")[0] + b":" + strange, deadline_ms))
        # And what is nobody's business.
        await forger.publish(announced(b"share:1", deadline_ms))
        await forger.publish(b"no event at all")
        await forger.tell(deadlines)
        found = await verification.found(1)
    assert found["false_reasons"] == {"early": 2, "mistaken": 2, "no_such_key": 5}
    assert (found["false"], found["delivered"], found["missed"]) == (9, 40, 0)
    assert len(found["false_keys"]) == 5
    assert found["ok"] is False


async def test_a_false_message_fails_a_verification_in_which_nothing_is_missed(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with Forger.of(world) as forger, world.verification(*LONG) as verification:
            key = (await world.planted(41))[-1]
            await forger.publish(announced(key, await forger.deadline_of(key)))
            found = await verification.found(1)
    assert (found["false"], found["delivered"], found["missed"]) == (1, 40, 0)
    assert found["false_keys"] == [key.decode()]


async def test_keys_that_are_taken_back_must_not_be_announced_but_may_be_if_deleted_in_a_gap(world: World) -> None:
    await no_bridge_any_more(world)
    async with Forger.of(world) as forger, world.verification(*LONG) as verification:
        deadlines = await forger.deadlines()
        put_off = [*deadlines][-1]
        prefix = put_off.rpartition(b":")[0]
        (deleted,) = {prefix + b":%d" % number for number in range(42)} - deadlines.keys()
        del deadlines[put_off]
        now_ms = 1_000_000
        for key in (put_off, deleted):
            await forger.publish(announced(key, now_ms))
            await forger.publish(announced(key, now_ms, via=Via.SWEEP))
        await forger.tell(deadlines)
        found = await verification.found(1)
    assert found["controls"] == 2
    assert found["false_reasons"] == {"control": 3}
    assert found["ambiguous"] == 1


async def test_a_copy_of_a_delivered_message_is_a_duplicate_and_no_failure(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with client_of(world) as client, world.verification(*LONG) as verification:
            jetstream = client.jetstream()
            subscription = await jetstream.subscribe(SUBJECT)
            stored = await subscription.next_msg(PATIENCE)
            await jetstream.publish(SUBJECT, stored.data)  # without Nats-Msg-Id
            found = await verification.found(0)
    assert (found["delivered"], found["duplicates"], found["false"]) == (40, 1, 0)


async def test_an_expiration_without_a_deadline_is_delivered_once(world: World) -> None:
    await no_bridge_any_more(world)
    unknown = {"deadline_ms": None, "id": "1" * 32}
    async with Forger.of(world) as forger, world.verification(*LONG, "--patience", "5s") as verification:
        key, deadline_ms = next(iter((await forger.deadlines()).items()))
        await passed(world.user, deadline_ms)
        for changed in (unknown, unknown, {**unknown, "id": "2" * 32}, {}):
            await forger.publish(announced(key, deadline_ms, **changed))
        found = await verification.found(1)
    assert (found["delivered"], found["without_deadline"], found["duplicates"]) == (1, 1, 1)
    assert found["false_reasons"] == {"mistaken": 2}
