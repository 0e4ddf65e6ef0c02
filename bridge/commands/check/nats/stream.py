"""What an existing JetStream stream must be for the bridge: one small function per check.

To add one, write the function and enter it in STREAM_CHECKS. `checks` are those for the settings.
"""

from collections.abc import Callable, Mapping

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo, StreamState

from bridge.commands.check.findings import MESSAGE_BYTES, Finding, failure, passed, warning
from bridge.commands.check.nats.remedies import DUPLICATE_WINDOW, MAX_AGE, NatsTools
from bridge.sinks.jetstream.once import MOVE, unfit
from bridge.sinks.jetstream.stream import (
    CLUSTER_REPLICAS,
    DUPLICATE_WINDOW_SECONDS,
    RETRY_HORIZON_SECONDS,
    in_cluster,
)
from bridge.sinks.subjects import covers, overlaps

AGE_SECONDS = 3600.0
"""Keeping messages for less is warned of: a consumer that is down must have time to come back."""
MESSAGES, BYTES = 10_000, 10 * 1024**2
"""Dropping the oldest message beyond fewer is warned of: it is what one burst of expirations may be."""

Check = Callable[[StreamInfo, NatsTools], Finding]


def _stream(info: StreamInfo, tools: NatsTools) -> Finding:
    config, name = info.config, tools.stream
    anew = f"when its consumers have read it, recreate it: nats stream rm {name}; {tools.add()}"
    if config.mirror is not None:
        return failure(f"{name} is a mirror: it takes no messages", "name another one in BRIDGE_NATS_STREAM")
    if config.sealed:
        return failure(f"{name} is sealed: it takes no messages", anew)
    if config.no_ack:
        return failure(f"{name} acks nothing (no_ack): there is no proof of what is stored", tools.edit(ack=True))
    if config.storage == StorageType.MEMORY:
        return warning(f"{name} is kept in memory: it is lost when its servers stop", anew)
    if config.retention == RetentionPolicy.INTEREST and not tools.once:
        return warning(
            f"{name} has interest retention: what no consumer waits for is dropped", tools.edit(retention="limits")
        )
    return passed(f"{name} exists, in files")


def _subjects(info: StreamInfo, tools: NatsTools) -> Finding:
    bound, published = info.config.subjects or [], tools.subjects.published
    found = f"{tools.stream} binds {', '.join(bound) or 'no subjects'}"
    edit = tools.bind(bound)
    if not any(overlaps(pattern, subject) for pattern in bound for subject in published):
        return failure(
            f"{found}, none of {', '.join(published)}",
            f"{edit}; or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
        )
    if info.config.subject_transform is not None:
        stored = info.config.subject_transform
        found = f"{found}, and stores {stored.src or '>'} as {stored.dest}: that is what consumers filter by"
    missing = [subject for subject in published if not any(covers(pattern, subject) for pattern in bound)]
    if missing:
        return warning(f"{found}, not all of {', '.join(missing)}: other messages become dead letters", edit)
    return passed(found)


def _duplicate_window(info: StreamInfo, tools: NatsTools) -> Finding:
    window, age = info.config.duplicate_window or 0, info.config.max_age or 0
    if window >= RETRY_HORIZON_SECONDS:
        return passed(f"{window:g} s")
    longer = {"max_age": MAX_AGE} if 0 < age < DUPLICATE_WINDOW_SECONDS else {}  # NATS wants the window to be within it
    return warning(
        f"{window:g} s: what is sent again later than that is stored twice",
        tools.edit(**longer, dupe_window=DUPLICATE_WINDOW),
    )


def _one_each(info: StreamInfo, tools: NatsTools) -> Finding:
    config, name = info.config, tools.stream
    why = unfit(config)
    if not why:
        return passed(f"{name} takes one message of a subject: a repeat is refused as long as it keeps the message")
    by_an_edit = config.subject_transform is None and config.retention == RetentionPolicy.LIMITS
    if by_an_edit and not info.state.messages:
        return failure(f"{name}: {why}", tools.edit(**tools.one_each))
    careful = "; an edit would drop all but the last message of each subject" if by_an_edit else ""
    return failure(f"{name}: {why}", f"{MOVE}{careful}")


def _message_size(info: StreamInfo, tools: NatsTools) -> Finding:
    limit = info.config.max_msg_size
    if limit is None or limit < 0:
        return passed("not limited by the stream")
    if limit >= tools.message_bytes:
        return passed(f"up to {limit} bytes")
    return warning(
        f"up to {limit} bytes: messages {tools.too_large} become dead letters",
        f"{tools.edit(max_msg_size=tools.message_bytes)} (or more; -1 for no limit)",
    )


def _replicas(info: StreamInfo, tools: NatsTools) -> Finding:
    count, cluster = info.config.num_replicas or 1, info.cluster
    if cluster is None or not in_cluster(info):
        return passed("1: the server stands alone, and what is acked is kept by it only")
    if count == 1:
        return warning("1: an ack is kept by one server only, and lost with it", tools.edit(replicas=CLUSTER_REPLICAS))
    if cluster.leader is None:
        return warning(f"{count}, without a leader: nothing can be published now", "start the other servers")
    peers = cluster.replicas or []
    behind = sorted(str(peer.name) for peer in peers if peer.offline or not peer.current)
    if behind:
        return warning(f"{count}, and not in sync: {', '.join(behind)}", "start these servers, or look into their logs")
    if count < CLUSTER_REPLICAS:
        return warning(f"{count}: nothing is acked while one of them is down", tools.edit(replicas=CLUSTER_REPLICAS))
    return passed(f"{count}, all in sync, led by {cluster.leader}")


REFUSED_SUBJECT = (
    "a full one refuses what is new (discard=new): it waits, and is a dead letter after BRIDGE_STUCK_SECONDS"
)


def _limits(info: StreamInfo, tools: NatsTools) -> Finding:
    config = info.config
    limits = {"max_msgs": config.max_msgs or -1, "max_bytes": config.max_bytes or -1}
    age, each = config.max_age or 0, config.max_msgs_per_subject or -1
    if config.discard == DiscardPolicy.NEW and _full(config, info.state):
        return failure("the stream is full, and refuses what is new (discard=new)", _unlimited(tools, limits))
    if 0 < age < AGE_SECONDS:
        return warning(f"{age:g} s: a consumer that is down for longer misses messages", tools.edit(max_age=MAX_AGE))
    if each > 0 and not tools.once:
        refuses = config.discard == DiscardPolicy.NEW and config.discard_new_per_subject
        what = REFUSED_SUBJECT if refuses else "older ones are dropped, whether or not they were consumed"
        return warning(f"{each} messages of a subject: {what}", tools.edit(max_msgs_per_subject=-1))
    few = 0 < limits["max_msgs"] < MESSAGES or 0 < limits["max_bytes"] < BYTES
    if few or (config.discard == DiscardPolicy.NEW and _words(limits) and not tools.once):
        old = "at a burst the oldest are dropped, whether or not they were consumed"
        new = "when it is full it refuses what is new (discard=new), which waits in Redis"
        found = f"{_words(limits)}: {new if config.discard == DiscardPolicy.NEW else old}"
        return warning(found, _unlimited(tools, limits))
    return _kept(config, ", ".join(filter(None, [_words(limits), f"{age / AGE_SECONDS:g} h" if age else ""])), tools)


def _kept(config: StreamConfig, limits: str, tools: NatsTools) -> Finding:
    if config.retention == RetentionPolicy.WORK_QUEUE:
        return passed(limits or "none: it is a work queue, which keeps messages until they are consumed")
    if not limits:
        return warning(
            "none: messages are kept until an operator deletes them, or the disk is full", tools.edit(max_age=MAX_AGE)
        )
    return passed(f"{limits}; a full one refuses what is new, which waits in Redis" if tools.once else limits)


def _as_asked(info: StreamInfo, tools: NatsTools) -> Finding:
    """Whether it is what the settings ask for of a stream that the bridge creates."""
    asked, config = tools.provision, info.config
    if asked is None:
        return passed("not asked for: BRIDGE_NATS_PROVISION=false")
    options: dict[str, object] = {}
    found = []
    if asked.retention_hours > 0 and (config.max_age or 0) != asked.retention_hours * AGE_SECONDS:
        options["max_age"] = tools.bounds["max_age"]
        found.append(f"messages are kept for {(config.max_age or 0) / AGE_SECONDS:g} h (0 = for ever)")
    if asked.max_bytes > 0 and config.max_bytes != asked.max_bytes:
        options["max_bytes"] = asked.max_bytes
        found.append(f"its bound of bytes is {config.max_bytes or -1}")
    if asked.replicas is not None and (config.num_replicas or 1) != asked.replicas:
        options["replicas"] = asked.replicas
        found.append(f"it has {config.num_replicas or 1} replicas")
    if found:
        return warning(
            f"{', '.join(found)}: not what the settings ask for, since an existing stream is never changed",
            tools.edit(**options),
        )
    return passed("as the settings ask for")


def _full(config: StreamConfig, state: StreamState) -> bool:
    return 0 < (config.max_msgs or 0) <= state.messages or 0 < (config.max_bytes or 0) <= state.bytes + MESSAGE_BYTES


def _words(limits: Mapping[str, int]) -> str:
    names = {"max_msgs": "messages", "max_bytes": "bytes"}
    return ", ".join(f"{limit} {names[name]}" for name, limit in limits.items() if limit > 0)


def _unlimited(tools: NatsTools, limits: Mapping[str, int]) -> str:
    return tools.edit(**{name: -1 for name, limit in limits.items() if limit > 0})


STREAM_CHECKS: Mapping[str, Check] = {
    "stream": _stream,
    "subjects": _subjects,
    "duplicate window": _duplicate_window,
    "message size": _message_size,
    "replicas": _replicas,
    "limits": _limits,
    "provision": _as_asked,
}

ONE_EACH = "one message per subject"


def checks(info: StreamInfo, tools: NatsTools) -> Mapping[str, Check]:
    """Those that make sense of this stream, for the deduplication that the settings ask for."""
    whether = {"stream": _stream}
    if info.config.mirror is not None or info.config.sealed:
        return whether
    if not tools.once:
        return STREAM_CHECKS
    if unfit(info.config):  # what else there is of it does not matter
        return whether | {ONE_EACH: _one_each}
    others = {name: check for name, check in STREAM_CHECKS.items() if check is not _duplicate_window}
    return others | {ONE_EACH: _one_each}
