"""What Redis allows a client's connection: the bridge's subscription, and its commands."""

from bridge.commands import screen
from bridge.commands.check.findings import Finding, passed, warning
from bridge.redis.admin.inspector import Inspector
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import channels
from bridge.redis.wire.logins import VARIABLE
from bridge.redis.wire.subscription import subscribe

OUTPUT = "client-output-buffer-limit"
BUFFER_HARD, BUFFER_SOFT = 8 * 1024**2, 1024**2
"""Bytes. Redis's own defaults are 32 MiB, and 8 MiB for 60 s."""
COMMANDS = 4 * 1024**2
"""Bytes that a query or a reply may have. A batch, and what is read of the outbox, has up to 1 MiB and one key more."""
ALL_CLIENTS = 64 * 1024**2
"""Bytes of all clients together: a few of the bridge's, and those of the services."""
DEFAULTS = {
    "client-query-buffer-limit": (COMMANDS, "1gb"),
    "proto-max-bulk-len": (COMMANDS, "512mb"),
    "maxmemory-clients": (ALL_CLIENTS, "0"),
}
"""What is enough, and what Redis itself sets, of each limit that is one number."""


async def login_renewal(redis: Inspector) -> Finding | None:
    """Whether what listens can be logged in anew; None where the login is always the same."""
    endpoint = redis.endpoint
    if endpoint.logins is None:
        return None
    session = await subscribe(endpoint, list(channels(endpoint.db)), Inbox(endpoint.limits), lambda: None)
    session.end("it was only a try")
    if session.login.renewable:
        return passed(f"{VARIABLE} is asked again and again, and live connections are logged in anew")
    return warning(
        f"{VARIABLE} is asked again and again, but Redis lets no connection that listens be logged in anew (it has no"
        " RESP3): another session takes over for each login",
        "allow HELLO 3, where it is renamed, or a proxy does not know it",
    )


async def subscriber_buffer(redis: Inspector) -> Finding:
    """Whether a burst of expirations fits into what Redis keeps for the subscription."""
    limits = await _output(redis)
    if "pubsub" not in limits:
        return warning(
            "cannot be read: CONFIG GET is refused",
            f"make sure of it: {OUTPUT} pubsub should be at least Redis's default, 32mb 8mb 60",
        )
    hard, soft, seconds = limits["pubsub"]
    found = f"{OUTPUT} pubsub: {size(hard)}" + (f", or {size(soft)} for {seconds} s" if soft else "")
    if 0 < hard < BUFFER_HARD or 0 < soft < BUFFER_SOFT:
        return warning(
            f"{found}: at a burst of expirations Redis may cut the subscription, and open a gap",
            f'CONFIG SET {OUTPUT} "pubsub 32mb 8mb 60", and the same in its configuration file',
        )
    return passed(found)


async def command_limits(redis: Inspector) -> Finding | None:
    """Whether queries and replies of usual size fit into what Redis takes; None where that may not be read."""
    tight: list[tuple[str, str]] = []
    readable = False
    for name, (enough, default) in DEFAULTS.items():
        value = await redis.directive(name)
        readable = readable or value is not None
        if value is not None and value.isdigit() and 0 < int(value) < enough:
            tight.append((f"{name} {size(int(value))}", f"{name} {default}"))
    hard, _, _ = (await _output(redis)).get("normal", (0, 0, 0))
    if 0 < hard < COMMANDS:
        tight.append((f"{OUTPUT} normal {size(hard)}", f'{OUTPUT} "normal 0 0 0"'))
    if not tight:
        return passed("no limit that a batch of the bridge comes near") if readable else None
    return warning(
        f"{', '.join(found for found, _ in tight)}: where keys are long, Redis may close the bridge's connections, and"
        " each time a gap opens, until its batches are small enough",
        f"CONFIG SET {' '.join(default for _, default in tight)}, and the same in its configuration file",
    )


async def _output(redis: Inspector) -> dict[str, tuple[int, int, int]]:
    """By the class of clients: bytes at which Redis closes a connection; bytes at which it does after some seconds."""
    words = (await redis.directive(OUTPUT) or "").split()
    return {
        name: (int(hard), int(soft), int(seconds))
        for name, hard, soft, seconds in zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
    }


def size(limit: int) -> str:
    """Bytes, in words."""
    return screen.size(limit) if limit else "no limit"
