"""An attempt at an epoch: one server, one lease, one subscription, one gap. The next attempt has others.

First its ears, under the lease: when all channels are confirmed, the gap is opened, and the epoch can begin.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import Kind, channels, elsewhere
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.server import databases
from bridge.redis.wire.subscription import Subscription, subscribe


@dataclass(frozen=True, slots=True)
class Ears:
    """What listens."""

    subscription: Subscription
    inbox: Inbox
    """What it has heard."""
    wake: asyncio.Event
    """Set when there may be something to do."""
    kinds: Mapping[bytes, Kind]
    """What each channel means."""
    complete: bool
    """Whether it hears of the expirations of all databases, as the audit needs."""


async def listen(client: Redis, endpoint: Endpoint) -> Ears:
    """Subscribe; return when all channels are confirmed. Raises NotConnected or Refused."""
    count = await databases(client, endpoint)
    here, others = channels(endpoint.db), elsewhere(endpoint.db, count or 0)
    inbox, wake = Inbox(endpoint.limits), asyncio.Event()
    subscription = await subscribe(endpoint, list(here), inbox, wake.set, elsewhere=list(others))
    return Ears(subscription, inbox, wake, here | others, count is not None and subscription.complete)


@dataclass(frozen=True, slots=True)
class Attempt:
    """See the module."""

    shard: Shard
    endpoint: Endpoint
    ledger: Ledger
    """The scripts, on that server."""
    lease: Lease
    ears: Ears
    gap: Gap
    heard: int
    """Notifications of expirations that former epochs have handled."""
    audited: bool
    """Whether what Redis counts can be compared with what is heard."""
