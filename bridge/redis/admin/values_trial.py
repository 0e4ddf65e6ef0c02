"""Whether values can be captured there, and proven: as the user that the bridge logs in as. For the commands.

Guarantees: nothing is changed, but for a key of the bridge's own that lives for a tenth of a second.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress

from redis.exceptions import NoPermissionError

from bridge.errors import Refused
from bridge.redis.admin.acl import answers_to
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.value_rights import NEWER_VALUE_READS, Word, value_reads, values_needs
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import INVALIDATIONS, channels
from bridge.redis.protocol.patterns import included
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.subscription import OptionalChannels, subscribe
from bridge.redis.wire.tracking import track

TTL_MS = 100
PATIENCE = 2.0
"""Seconds to wait for what Redis says of a write."""


async def denied_values(inspector: Inspector) -> list[str]:
    """What capturing values takes that the user may not do. Raises NotConnected or Refused."""
    commands: dict[str, Sequence[Word]] = {
        rule: [*rule.split("|"), *arguments] for rule, arguments in values_needs(inspector.names).items()
    }
    for pattern in included(inspector.settings.values or []):
        # As in `acl.py`: a pattern nearly always matches itself. It is only read, and mostly there is no such key.
        for rule, arguments in value_reads(pattern).items():
            commands[f"{rule} {pattern}"] = [*rule.split("|"), *arguments]
    return await _denied(inspector, commands)


async def denied_newer_reads(inspector: Inspector) -> list[str]:
    """Those of `NEWER_VALUE_READS` that the server has, and the user may not run, as rules. Raises likewise."""
    further = {"hpexpiretime": ("FIELDS", 1, "f")}
    return await _denied(
        inspector,
        {
            f"(%R~{pattern} +{name})": [name, pattern, *further.get(name, ())]
            for name in NEWER_VALUE_READS
            for pattern in included(inspector.settings.values or [])
        },
    )


async def _denied(inspector: Inspector, commands: Mapping[str, Sequence[Word]]) -> list[str]:
    answers = await answers_to(inspector, commands.values())
    return [name for name, answer in zip(commands, answers, strict=True) if isinstance(answer, NoPermissionError)]


async def try_tracking(inspector: Inspector) -> str:
    """Read a key on a tracked connection, and write it. Returns why Redis did not report it, or ''.

    Raises NotConnected.
    """
    key, heard = inspector.names.canary + b":%b" % uuid.uuid4().hex.encode(), asyncio.Event()
    endpoint = inspector.endpoint
    inbox = Inbox(endpoint.limits)
    channel = next(iter(channels(endpoint.db)))
    session = await subscribe(endpoint, [channel], inbox, heard.set, OptionalChannels(invalidations=True))
    try:
        if session.id is None or not session.invalidations:
            return "the user may not ask for them (+client|id, &__redis__:invalidate)"
        try:
            tracking = await track(endpoint, session.id)
        except Refused as error:
            return error.found
        try:
            await tracking.answers([(b"CLIENT", b"CACHING", b"YES"), (b"EXISTS", key)])
            async with conversation(endpoint):
                await inspector.client.set(key, "", px=TTL_MS)
            with suppress(TimeoutError):
                async with endpoint.clock.timeout(PATIENCE):
                    while (INVALIDATIONS, key) not in inbox:
                        heard.clear()
                        await heard.wait()
                    return ""
            return "a key was written that had been read, and nothing said so"
        finally:
            tracking.close()
    finally:
        session.end("it was only a try")
