"""What the sink's Redis must be for the bridge: a way in, the stream, rights, memory, persistence, a length.

Nothing is changed, but that with `publish` one message is appended. In a cluster each primary is looked at.
"""

from collections.abc import Awaitable, Callable, Mapping

from bridge.clock import SystemClock
from bridge.cloudevents import CHECK_TYPE
from bridge.commands.check.findings import Finding, Row, failed_with, failure, passed, warning
from bridge.commands.check.test_message import CHECK
from bridge.contracts import Message
from bridge.errors import ErrorKind, Unusable
from bridge.limits import WireLimits
from bridge.redis.wire.conversation import conversation
from bridge.settings import Settings
from bridge.sinks.redis.entries import fields_of
from bridge.sinks.redis.keys import StreamTemplate, memory_of
from bridge.sinks.redis.script import append, may_append
from bridge.sinks.redis.servers import Server, Servers, named, servers_of

AREA = "Redis Streams"
COMMANDS = (
    "+evalsha +script|load +xadd +xlen +hget +hset +hdel +hexists +hlen +hgetall"
    " +time +type +ping +info +client|setname"
)

Info = Mapping[str, object]


async def check_streams(settings: Settings, db: int, trial: Message | None) -> list[Row]:
    """All rows about the sink's Redis; only the first where it cannot be reached. `trial` is appended, if given."""
    servers = servers_of(settings, WireLimits(), SystemClock())
    try:
        try:
            await servers.open()
        except Unusable as error:
            remedy = "start Redis there, or point BRIDGE_SINK_REDIS_URL at where it is"
            return [Row(AREA, "connection", failed_with(named(error, settings), remedy))]
        return await _examine(servers, settings, StreamTemplate(settings, db), trial)
    finally:
        await servers.close()


async def _examine(servers: Servers, settings: Settings, streams: StreamTemplate, trial: Message | None) -> list[Row]:
    nodes = servers.all()
    where = ", ".join(str(endpoint) for _, endpoint in nodes)
    rows = [Row(AREA, "connection", passed(where)), Row(AREA, "length", _length(settings))]
    for name, look in (("stream", _stream), ("rights", _rights)):
        rows.append(Row(AREA, name, await _safely(look(servers, settings, streams))))
    for server in nodes:
        own = str(server.endpoint) if len(nodes) > 1 else ""
        for name, judge in (("memory", _memory), ("persistence", _persistence)):
            rows.append(Row(AREA, name, await _safely(_judged(server, judge)), where=own))
    if trial is not None:
        rows.append(Row(AREA, CHECK, await _safely(_try(servers, streams, trial))))
    return rows


async def _safely(finding: Awaitable[Finding]) -> Finding:
    """One check must not hide the others."""
    try:
        return await finding
    except Unusable as error:
        return warning(f"cannot be read: {error}", "ask the operators of this Redis")


async def _judged(server: Server, judge: Callable[[Info], Finding]) -> Finding:
    async with conversation(server.endpoint):
        return judge(await server.client.info())


def _length(settings: Settings) -> Finding:
    most = settings.sink_redis_maxlen
    if most is None:
        return warning(
            "every entry is kept until an operator deletes it, or memory is full",
            "set BRIDGE_SINK_REDIS_MAXLEN to what its consumers need",
        )
    return passed(f"about {most} entries are kept, and older ones dropped, whether or not they were consumed")


async def _stream(servers: Servers, settings: Settings, streams: StreamTemplate) -> Finding:
    if streams.fixed is None:
        return passed(f"one for each prefix: {settings.sink_redis_stream}")
    client, endpoint = servers.of(streams.fixed)
    name = streams.fixed.decode()
    async with conversation(endpoint):
        kind: object = await client.type(streams.fixed)
    if kind == b"none":
        return passed(f"{name} does not exist yet: its first message creates it")
    if kind != b"stream":
        return failure(f"the key {name} holds something else", "name another one in BRIDGE_SINK_REDIS_STREAM")
    async with conversation(endpoint):
        return passed(f"{name} has {await client.xlen(streams.fixed)} entries")


async def _rights(servers: Servers, settings: Settings, streams: StreamTemplate) -> Finding:
    stream = streams.check
    client, endpoint = servers.of(stream)
    try:
        await may_append(client, endpoint, stream)
    except Unusable as error:
        if error.kind is not ErrorKind.DENIED:
            raise
        return failure(error.found, streams_rule(settings, endpoint.user))
    return passed(f"user {endpoint.user} may append to {stream.decode()}")


def streams_rule(settings: Settings, user: str) -> str:
    """The least that the user needs at the sink's server, as an ACL SETUSER for redis-cli's prompt."""
    pattern = settings.sink_redis_stream.replace("{prefix}", "*").replace("{db}", "*")
    return f"ACL SETUSER {user} ~{pattern} ~{memory_of(pattern.encode()).decode()} {COMMANDS}"


def _memory(info: Info) -> Finding:
    policy, most = str(info.get("maxmemory_policy", "")), int(str(info.get("maxmemory", 0)))
    if policy.startswith("allkeys-"):
        return failure(
            f"maxmemory-policy is {policy}: it may evict a stream, and what was acked with it",
            "CONFIG SET maxmemory-policy noeviction (or a volatile-* one: streams have no TTL)",
        )
    return passed(f"{policy}, {f'at most {most} bytes' if most else 'no maxmemory'}: a full server takes nothing new")


def _persistence(info: Info) -> Finding:
    if str(info.get("aof_enabled")) == "1":
        return passed("append-only file")
    return warning(
        "no append-only file: what was acked since the last snapshot is lost when the server crashes",
        "CONFIG SET appendonly yes, and the same in its configuration file",
    )


async def _try(servers: Servers, streams: StreamTemplate, trial: Message) -> Finding:
    stream = streams.of_message(trial)
    fields = fields_of(trial)
    line = b"check:" + trial.id.encode()
    _, failed = await append(*servers.of(stream), stream, ["", 1, 0, line, 0, 0, len(fields), *fields])
    if failed:
        return failure(f"{stream.decode()} refuses it: {failed}", "look at the rows above")
    return passed(f"the last entry of {stream.decode()}; its type is {CHECK_TYPE}")
