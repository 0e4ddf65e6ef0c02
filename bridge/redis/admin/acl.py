"""Which commands, keys and channels the bridge's Redis user needs, and which of them it is denied.

Guarantees: asking changes nothing. Where the user may use ACL DRYRUN, nothing is even run. Elsewhere each command is
tried in a form that cannot do anything: it reads, or Redis refuses its arguments, and does so only after it has looked
at the permissions.
"""

import re
from collections.abc import Iterable, Sequence

from redis.exceptions import NoPermissionError, ResponseError

from bridge.errors import Refused
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.value_rights import Word, value_reads, values_needs
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import INVALIDATIONS, channels, field_channels
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import included
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import CLIENT_NAME, CLUSTER, Endpoint
from bridge.redis.wire.notify_flags import FLAGS
from bridge.redis.wire.subscription import OptionalChannels, subscribe
from bridge.settings import Settings

READ = "pexpiretime"
"""The command that the bridge must be able to send for users' keys."""

OF_USERS = (READ, "exists")
"""All that it sends for them. Without the second, touching what is due takes longer."""

OF_HASHES = ("hkeys", "hlen", "hpexpiretime", "hscan", "type")
"""All that it sends for hashes whose fields are bridged."""

SAY_NAME = "client|setname"
"""The one that the bridge can do without."""

_BEHIND = {"hpexpiretime": ("FIELDS", 1, ""), "hscan": (0,)}
"""What stands behind the key, in the most harmless form."""


def needs(names: Names, *, clustered: bool = False) -> dict[str, Sequence[Word]]:
    """What the bridge, its scripts, `status` and `dead` send: commands as ACL rules name them, with harmless arguments.

    Keys are those that the bridge would use. Not among them: SUBSCRIBE, which is more than one command to try, and
    CONFIG, since there are ways around it.
    """
    deadlines, lease, outbox, dead, mark = names.deadlines, names.lease, names.outbox, names.dead, names.mark(0, 0)
    shas: Sequence[Word] = ("0" * 40, 5, deadlines, lease, outbox, dead, mark)  # no such script
    commands: dict[str, Sequence[Word]] = {
        SAY_NAME: (CLIENT_NAME,),
        "ping": (),
        "time": (),
        "info": ("server",),
        "scan": (0, "COUNT", 1),
        "evalsha": shas,
        "script|load": ("return (",),  # does not compile
        "exists": (outbox,),
        "del": (mark,),  # there is none
        "set": (mark, "", "no-option"),
        "hdel": (lease, "no-field"),
        "hgetall": (names.members,),
        "hget": (lease, "fence"),
        "hmget": (lease, "fence"),
        "hset": (lease, "odd", "number", "of"),
        "hincrby": (lease, "odd", "no-number"),
        "zadd": (deadlines, "no-number", mark),
        "zrem": (deadlines, mark),  # it is not in it
        "zmscore": (deadlines, mark),
        "zcard": (deadlines,),
        "zrange": (deadlines, 0, 0),
        "zscan": (deadlines, 0, "COUNT", 1),
        "xadd": (outbox, "no-id", "field", "value"),
        "xdel": (outbox, "no-id"),
        "xlen": (dead,),
        "xrange": (outbox, "0-1", "0-1"),
        "xrevrange": (outbox, "0-1", "0-1"),  # for the commands `status` and `dead` only
        "xinfo|stream": (outbox,),
    }
    if clustered:
        return commands | {"cluster|nodes": (), "asking": (), "zscore": (names.moved, "no-key")}
    return commands | {"get": (names.shards,)} | ({"select": (names.db,)} if names.db else {})


def field_needs(names: Names) -> dict[str, Sequence[Word]]:
    """What fields of hashes take beyond `needs`: likewise."""
    return {"zscore": (names.fields, "no-hash"), "zcount": (names.fields, 1, 0)}


def standby_needs(names: Names, *, clustered: bool = False) -> dict[str, Sequence[Word]]:
    """What a takeover without a gap takes beyond `needs`: likewise, with a channel to which no bridge listens."""
    channel = names.alive("check")
    if clustered:
        return {"spublish": (channel, ""), "pubsub|shardnumsub": (channel,)}
    return {"publish": (channel, ""), "pubsub|numsub": (channel,)}


def filler_needs() -> dict[str, Sequence[Word]]:
    """What filling gaps from the replication backlog takes beyond both, for a stream that there is not."""
    return {"psync": ("0" * 40, 1), "replconf": ("capa", "eof")}


def acl_rule(settings: Settings) -> str:
    """The least that the user needs, as an ACL SETUSER for redis-cli's prompt.

    In parentheses, as selectors: so it adds to whatever the user has. A bare pattern behind a `~*` would be an error.
    Two of them, so that what may be sent for the bridge's own keys, GET above all, may not be sent for the users'.
    """
    endpoint = Endpoint.of(settings)
    db, names = endpoint.db, Names(settings.namespace, endpoint.db)
    clustered = endpoint.finder == CLUSTER
    commands = [*needs(names, clustered=clustered), *standby_needs(names, clustered=clustered), READ, "subscribe"]
    commands += ["config|get", *(["ssubscribe"] if clustered else [])]
    if settings.fields:
        commands += field_needs(names)
    if settings.redis_notifications == "configure":
        commands.append("config|set")
    if settings.redis_backlog != "off":
        commands += filler_needs()
    if settings.values is not None:
        commands += values_needs(names)
    own = names.own_pattern.decode()
    mine = [f"~{own}", f"&__keyevent@{db}__:*", "&__keyevent@*__:expired", f"&{own}"]
    if settings.fields:
        mine.insert(2, f"&__subkeyevent@{db}__:*")
    # One EXISTS may be of keys of both kinds.
    users = [f"%R~{own}", *(f"%R~{pattern}" for pattern in included(settings.keys))]
    selectors = [_selector(mine, commands), _selector(users, OF_USERS)]
    if settings.values is not None:
        mine.append(f"&{INVALIDATIONS.decode()}")
        patterns = included(settings.values)
        # The last one is for Redis before 7.4, which tracks only keys that a script declares. It runs nothing on them.
        selectors = [
            _selector(mine, commands),
            _selector(users, OF_USERS),
            _selector([f"%R~{pattern}" for pattern in patterns], list(value_reads(""))),
            _selector([f"~{own}", *(f"~{pattern}" for pattern in patterns)], ["evalsha"]),
        ]
    if settings.fields:
        selectors.append(_selector([f"%R~{pattern}" for pattern in included(settings.fields)], OF_HASHES))
    return f"ACL SETUSER {endpoint.user} {' '.join(selectors)}"


def _selector(patterns: Sequence[str], commands: Sequence[str]) -> str:
    # A rule cannot hold a space; `?` matches it.
    rules = [*(pattern.replace(" ", "?") for pattern in patterns), *(f"+{command}" for command in sorted({*commands}))]
    quoted = ('"' + re.sub(r'(["\\])', r"\\\1", rule) + '"' if re.search(r"[\\'\"]", rule) else rule for rule in rules)
    return f"({' '.join(quoted)})"


async def denied(inspector: Inspector) -> list[str]:
    """The commands that the user may not run, or not with the bridge's keys and channels. Raises NotConnected."""
    try:
        return await _dry_run(inspector)
    except Refused:
        return await _try(inspector)


async def denied_to_standby(inspector: Inspector) -> list[str]:
    """The commands and channels of a takeover without a gap that the user may not use. Raises NotConnected."""
    names, clustered = inspector.names, inspector.topology is not None
    commands = {
        rule: [*rule.split("|"), *arguments] for rule, arguments in standby_needs(names, clustered=clustered).items()
    }
    answers = await answers_to(inspector, commands.values())
    refused = [
        name
        for name, answer in zip(commands, answers, strict=True)
        if isinstance(answer, NoPermissionError) or "unknown command" in str(answer)
    ]
    optional = OptionalChannels(presence=[names.announcements, names.alive("check")], sharded=clustered)
    required = list(channels(inspector.endpoint.db))
    try:
        session = await subscribe(
            inspector.endpoint, required, Inbox(inspector.endpoint.limits), lambda: None, optional
        )
    except Refused:
        return refused  # that is what `denied` reports
    session.end("it was only a try")
    return refused if session.present else [*refused, f"&{names.own_prefix.decode()}*"]


async def denied_to_filler(inspector: Inspector) -> list[str]:
    """The commands of the filler that the user may not run. Raises Refused where that is not told, NotConnected."""
    async with conversation(inspector.endpoint):
        user: Word = await inspector.client.acl_whoami()
    commands = filler_needs()
    answers = await answers_to(inspector, [["ACL DRYRUN", user, name, *words] for name, words in commands.items()])
    return [name for name, answer in zip(commands, answers, strict=True) if answer not in {b"OK", "OK"}]


async def may_set_flags(inspector: Inspector) -> bool:
    """Whether the user may change the notification flags. Raises NotConnected."""
    # With a value that no version takes. Who may not use the command never gets as far as to hear that.
    [answer] = await answers_to(inspector, [["CONFIG SET", FLAGS, "?"]])
    return "nvalid" in str(answer)


def _commands(inspector: Inspector) -> dict[str, list[Word]]:
    """`needs`, and the reading of users' keys, as complete commands, by what to call them."""
    clustered = inspector.topology is not None
    needed = needs(inspector.names, clustered=clustered)
    if inspector.settings.fields:
        needed |= field_needs(inspector.names)
    commands: dict[str, list[Word]] = {
        rule: [*rule.split("|"), *arguments] for rule, arguments in needed.items() if rule != SAY_NAME
    }
    for pattern in included(inspector.settings.keys):
        # A pattern nearly always matches itself, and so will whatever pattern of the ACL's allows for its keys.
        commands[f"{READ} {pattern}"] = [READ, pattern]
    for pattern in included(inspector.settings.fields or []):
        commands |= {f"{read} {pattern}": [read, pattern, *_BEHIND.get(read, ())] for read in OF_HASHES}
    return commands


async def _dry_run(inspector: Inspector) -> list[str]:
    """Ask Redis what it would allow. Raises Refused where asking is not allowed."""
    commands = _commands(inspector)
    commands["subscribe"] = ["subscribe", *_channels(inspector)]
    async with conversation(inspector.endpoint):
        user: Word = await inspector.client.acl_whoami()
    answers = await answers_to(inspector, [["ACL DRYRUN", user, *command] for command in commands.values()])
    if all(isinstance(answer, ResponseError) for answer in answers):
        raise Refused(str(answers[0]))
    # A command that was renamed away is an error; a denial is not, it is the answer.
    return [name for name, answer in zip(commands, answers, strict=True) if answer not in {b"OK", "OK"}]


async def _try(inspector: Inspector) -> list[str]:
    """Send the commands."""
    commands = _commands(inspector)
    answers = await answers_to(inspector, commands.values())
    refused = [
        name
        for name, answer in zip(commands, answers, strict=True)
        if isinstance(answer, NoPermissionError) or "unknown command" in str(answer)
    ]
    try:
        names = _channels(inspector)
        session = await subscribe(inspector.endpoint, names, Inbox(inspector.endpoint.limits), lambda: None)
    except Refused:
        refused.append("subscribe")
    else:
        session.end("it was only a try")
    return refused


def _channels(inspector: Inspector) -> list[bytes]:
    db = inspector.endpoint.db
    return [*channels(db), *(field_channels(db, named=False) if inspector.settings.fields else ())]


async def answers_to(inspector: Inspector, commands: Iterable[Sequence[Word]]) -> list[object]:
    """What Redis answers to each command; an error is an answer."""
    pipeline = inspector.client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    async with conversation(inspector.endpoint):
        return await replies(pipeline, but=ResponseError)
