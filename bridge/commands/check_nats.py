"""What NATS must be for the bridge: a connection, then the stream, by one small function per check. Nothing is changed.

To add one about the stream, write the function and enter it in STREAM_CHECKS.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js import JetStreamContext
from nats.js.api import ClusterInfo, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from bridge.commands.findings import MESSAGE_BYTES, Finding, Row, failed_with, failure, passed, warning
from bridge.errors import NotConnected, Refused
from bridge.settings import Settings
from bridge.sinks.jetstream.connect import Handlers, connect, discard
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.stream import (
    CLUSTER_REPLICAS,
    DUPLICATE_WINDOW_SECONDS,
    NOT_ENABLED,
    RETRY_HORIZON_SECONDS,
    in_cluster,
)
from bridge.sinks.subjects import SubjectTemplate, covers, overlaps

AREA = "NATS"
API_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask for."""

    stream: str
    subjects: SubjectTemplate
    provision: bool


async def check_nats(settings: Settings, db: int) -> list[Row]:
    """All rows about NATS, up to the first without which the others make no sense. Raises ConfigurationError."""
    wanted = Wanted(settings.nats_stream, SubjectTemplate(settings.nats_subject, db), settings.nats_provision)
    denials = Denials()

    async def on_error(error: Exception) -> None:
        denials.note(str(error))

    async def on_change() -> None:
        """A connection that is lost shows in the answers that do not come."""

    try:
        client = await connect(settings, Handlers(on_error, on_change, on_change))
    except (NotConnected, Refused) as error:
        mend = "start NATS there, or point BRIDGE_NATS_URL at where it is"
        return [Row(AREA, "connection", failed_with(error, mend))]
    try:
        return [Row(AREA, "connection", _connection(client)), *await _check_stream(client, wanted, denials)]
    finally:
        await discard(client)


def _connection(client: Client) -> Finding:
    url, version = client.connected_url, client.connected_server_version
    where = url.netloc.rpartition("@")[2] if url else "?"
    return passed(f"{where}, nats-server {version.major}.{version.minor}.{version.patch}")


async def _check_stream(client: Client, wanted: Wanted, denials: Denials) -> list[Row]:
    jetstream = client.jetstream(timeout=API_SECONDS)
    rows: list[Row] = []
    try:
        info = await jetstream.stream_info(wanted.stream)
    except NotFoundError:
        rows.append(Row(AREA, "stream", await _missing(jetstream, wanted)))
        info = None
    except APIError as error:
        return [Row(AREA, "JetStream", _unusable(error))]
    except NoAnswer:
        return [Row(AREA, "JetStream", _unanswered(wanted, denials))]
    except Error as error:
        return [Row(AREA, "JetStream", failure(f"no answer: {error}", "look into the log of the NATS server"))]
    if info is not None:
        rows += [Row(AREA, name, check(info.config, wanted)) for name, check in STREAM_CHECKS.items()]
        if in_cluster(info):
            rows.append(Row(AREA, "replicas", _replicas(info.config, info.cluster or ClusterInfo())))
    return [Row(AREA, "JetStream", passed("enabled")), *rows]


def _unusable(error: APIError) -> Finding:
    if error.err_code in NOT_ENABLED:
        return failure(
            "not enabled for this account",
            "enable it in the server's configuration: accounts { NAME { jetstream: enabled } }",
        )
    if isinstance(error, ServiceUnavailableError) and error.err_code is None:
        return failure("the server has none", "start it with --jetstream, or add jetstream {} to its configuration")
    return failure(f"{error.description} (error {error.err_code})", "look into the log of the NATS server")


def _unanswered(wanted: Wanted, denials: Denials) -> Finding:
    if denials.subscription:
        return failure("the user may not receive answers", "allow it to subscribe to _INBOX.>")
    if not denials.api:
        return failure(f"no answer within {API_SECONDS:g} s", "look into the log of the NATS server")
    info, create = f"$JS.API.STREAM.INFO.{wanted.stream}", f"$JS.API.STREAM.CREATE.{wanted.stream}"
    if wanted.provision:
        return failure(
            "the user may not ask about streams",
            f"allow it to publish to {info} and {create}; or create the stream, and set BRIDGE_NATS_PROVISION=false",
        )
    return warning("cannot be read: the user may not ask about streams", f"allow it to publish to {info}")


async def _missing(jetstream: JetStreamContext, wanted: Wanted) -> Finding:
    """What it means that the stream does not exist: whether it will be created, and can be."""
    subjects = ",".join(wanted.subjects.provisioned)
    for subject in wanted.subjects.provisioned:
        with suppress(Error):  # nobody binds it, or we may not ask
            other = await jetstream.find_stream_name_by_subject(subject)
            return failure(
                f"{wanted.stream} does not exist and cannot be created: stream {other} binds some of {subjects}",
                f"set BRIDGE_NATS_STREAM={other}, or change BRIDGE_NATS_SUBJECT",
            )
    if wanted.provision:
        return passed(f"{wanted.stream} does not exist yet: the bridge creates it when it starts")
    return failure(
        f"{wanted.stream} does not exist",
        f"nats stream add {wanted.stream} --subjects '{','.join(wanted.subjects.published)}' --storage file"
        f" --dupe-window {DUPLICATE_WINDOW_SECONDS / 60:g}m --defaults; or set BRIDGE_NATS_PROVISION=true",
    )


def _stream(config: StreamConfig, wanted: Wanted) -> Finding:
    mend = "change it, or name another one in BRIDGE_NATS_STREAM"
    if config.sealed:
        return failure(f"{wanted.stream} is sealed: it takes no messages", mend)
    if config.no_ack:
        return failure(f"{wanted.stream} acks nothing (no_ack): nobody could know what is stored", mend)
    if config.storage == StorageType.MEMORY:
        return warning(f"{wanted.stream} is kept in memory: it is lost when its servers stop", "use file storage")
    if config.retention == RetentionPolicy.INTEREST:
        return warning(
            f"{wanted.stream} has interest retention: what no consumer waits for is dropped", "use limits retention"
        )
    return passed(f"{wanted.stream} exists, in files")


def _subjects(config: StreamConfig, wanted: Wanted) -> Finding:
    bound, published = config.subjects or [], wanted.subjects.published
    found = f"{wanted.stream} binds {', '.join(bound) or 'no subjects'}"
    edit = f"nats stream edit {wanted.stream} --subjects '{','.join([*bound, *published])}'"
    if not any(overlaps(pattern, subject) for pattern in bound for subject in published):
        return failure(
            f"{found}, none of {', '.join(published)}",
            f"{edit}; or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
        )
    missing = [subject for subject in published if not any(covers(pattern, subject) for pattern in bound)]
    if missing:
        return warning(f"{found}, not all of {', '.join(missing)}: other messages become dead letters", edit)
    return passed(found)


def _replicas(config: StreamConfig, cluster: ClusterInfo) -> Finding:
    copies, others = config.num_replicas or 1, cluster.replicas or []
    edit = f"nats stream edit {config.name} --replicas {CLUSTER_REPLICAS}"
    if copies == 1:
        return warning("1: while its server is down nothing can be published, and its disk is all there is", edit)
    if cluster.leader is None:
        return warning(f"{copies}, without a leader: nothing can be published now", "start the other servers")
    behind = sorted(replica.name or "?" for replica in others if replica.offline or not replica.current)
    if behind:
        return warning(
            f"{copies}, of which these are offline or behind: {', '.join(behind)}",
            "start them, or wait until they have caught up",
        )
    if copies < CLUSTER_REPLICAS:
        return warning(f"{copies}: while one of the servers is down nothing can be published", edit)
    return passed(f"{copies}, led by {cluster.leader}")


def _duplicate_window(config: StreamConfig, wanted: Wanted) -> Finding:
    window = config.duplicate_window or 0
    if window >= RETRY_HORIZON_SECONDS:
        return passed(f"{window:g} s")
    return warning(
        f"{window:g} s: what is sent again later than that is stored twice",
        f"nats stream edit {wanted.stream} --dupe-window {DUPLICATE_WINDOW_SECONDS / 60:g}m",
    )


def _message_size(config: StreamConfig, wanted: Wanted) -> Finding:
    limit = config.max_msg_size
    if limit is None or limit < 0:
        return passed("not limited by the stream")
    if limit >= MESSAGE_BYTES:
        return passed(f"up to {limit} bytes")
    return warning(
        f"up to {limit} bytes: messages of longer keys become dead letters",
        f"nats stream edit {wanted.stream} --max-msg-size {MESSAGE_BYTES} (or more; -1 for no limit)",
    )


STREAM_CHECKS: Mapping[str, Callable[[StreamConfig, Wanted], Finding]] = {
    "stream": _stream,
    "subjects": _subjects,
    "duplicate window": _duplicate_window,
    "message size": _message_size,
}
