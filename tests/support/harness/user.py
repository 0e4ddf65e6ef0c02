"""What the user does to a server on which the ledger protocol is played, and what the ledger knows of it."""

import json
from collections.abc import Sequence

from redis.asyncio import Redis

from bridge.redis.protocol.own_keys import Names
from tests.support.redis.commands import DEBUG, redis_ms
from tests.support.servers import wait_until

NAMES = Names("expiry-bridge", 0)
NOTIFY = {"notify-keyspace-events": "Egxe"}
"""For a server that is played by hand: nobody configures it."""
LAZY = {**DEBUG, **NOTIFY}
"""For a server on which the test decides what expires: see `lazily`."""


async def expired(user: Redis, *keys: bytes) -> None:
    """Return when none of the keys is there any more. Reading them is what makes Redis expire them."""

    async def are_gone() -> bool:
        return await user.exists(*keys) == 0

    await wait_until(are_gone, f"the end of {keys!r}")


async def passed(user: Redis, deadline_ms: int) -> None:
    """Return when the deadline is past on Redis's clock; reads no key."""

    async def is_past() -> bool:
        return await redis_ms(user) > deadline_ms

    await wait_until(is_past, f"{deadline_ms} on Redis's clock")


_KNOWN = """
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
redis.call('SET', KEYS[2], '', 'PXAT', deadline)
redis.call('ZADD', KEYS[1], deadline, KEYS[2])
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return deadline
"""


async def known(user: Redis, key: bytes, ms: int, *then: Sequence[str | int]) -> int:
    """Set a key that lives for `ms` milliseconds, with a ledger that knows of it already; its deadline.

    The commands of `then` are run in the same moment: no machine is so slow that the key would expire before.
    """
    reply = await user.eval(_KNOWN, 2, NAMES.deadlines, key, ms, json.dumps(then))
    return int(reply)


async def recorded(user: Redis, *keys: bytes) -> None:
    """Return when all keys are in the ledger."""

    async def are_recorded() -> bool:
        return None not in [await entry(user, key) for key in keys]

    await wait_until(are_recorded, f"{keys!r} in the ledger")


async def entry(user: Redis, key: bytes) -> int | None:
    """The deadline that the ledger knows of the key."""
    score = await user.zscore(NAMES.deadlines, key)
    return None if score is None else int(score)


async def lapse(user: Redis) -> None:
    """Make the lease end now, as if its time had passed: whoever held it has not been heard of."""
    await user.hset(NAMES.lease, "until", 0)
