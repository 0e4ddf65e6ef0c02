"""An attempt at an epoch: one server, one subscription, one lease, one gap. The next attempt has others.

First come its ears: a standby listens before it has the lease (`standby.py`). Then comes the lease, and the epoch can
begin: where the former one stopped, or with a gap.
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
from bridge.redis.protocol.notifications import (
    EXPIRATIONS,
    NAMING_FLAG,
    NEEDED_FLAGS,
    OF_FIELDS,
    TRACKED,
    Kind,
    channels,
    elsewhere,
    field_channels,
)
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import digest
from bridge.redis.protocol.takeover import Inheritance
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.notify_flags import needed_flags
from bridge.redis.wire.server import databases, expiry_word
from bridge.redis.wire.subscription import OptionalChannels, Subscription, subscribe


@dataclass(frozen=True, slots=True)
class Ears:
    """The subscription, and what it has heard."""

    subscription: Subscription
    inbox: Inbox
    """What it has heard."""
    wake: asyncio.Event
    """Set when there may be something to do."""
    kinds: Mapping[bytes, Kind]
    """What each channel means."""
    scope: bytes
    """The digest of what is heard, and for which keys: see `Place`."""
    complete: bool
    """Whether it hears the expirations of all databases, as the audit needs."""
    present: bool
    """Whether other bridges can see that it listens, and it hears what they announce."""
    flags: str = NEEDED_FLAGS
    """The flags of `notify-keyspace-events` that it needs."""
    word: bytes = b""
    """The command by which the server replicates an expiration; empty where it is unknown or does not matter."""


async def listen(client: Redis, endpoint: Endpoint, names: Names, instance: str) -> Ears:
    """Subscribe; return when all channels are confirmed. Raises NotConnected or Refused."""
    count = await databases(client, endpoint)
    flags = await needed_flags(client, endpoint)
    word = await expiry_word(client, endpoint) if endpoint.settings.redis_backlog != "off" else b""
    here, others = channels(endpoint.db), elsewhere(endpoint.db, count or 0)
    if endpoint.settings.fields:
        here |= field_channels(endpoint.db, named=NAMING_FLAG in flags)
    presence = {names.announcements: Kind.ANNOUNCED, names.alive(instance): Kind.ANNOUNCED}
    inbox = Inbox(endpoint.limits, [channel for channel, kind in here.items() if kind in EXPIRATIONS | OF_FIELDS])
    wake = asyncio.Event()
    optional = OptionalChannels(
        list(others),
        list(presence),
        sharded=endpoint.finder == CLUSTER,
        invalidations=endpoint.settings.values is not None,
    )
    # The last step that can fail. If a later one failed, nothing would end the subscription.
    subscription = await subscribe(endpoint, list(here), inbox, wake.set, optional)
    heard = here | (others if subscription.complete else {})
    return Ears(
        subscription,
        inbox,
        wake,
        here | others | presence | TRACKED,
        digest(heard, endpoint.settings.bridged_keys()),
        complete=count is not None and subscription.complete,
        present=subscription.present,
        flags=flags,
        word=word,
    )


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
    inheritance: Inheritance | None = None
    """What it takes over of the former epoch's stream; None where the stream is not known so far back."""
