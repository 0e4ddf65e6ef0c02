"""What NATS must be for the bridge: a connection, an account, rights, then the stream (`check_stream`).

Nothing is changed, but that with `publish` one message is published, to a stream that exists.
"""

import asyncio
from contextlib import suppress

from nats.aio.client import Client
from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js.api import AccountLimits, StreamInfo
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from bridge.clock import SystemClock
from bridge.commands.check.findings import (
    MESSAGE_BYTES,
    Finding,
    Level,
    Row,
    failed_with,
    failure,
    message_bytes,
    passed,
    too_large,
    warning,
)
from bridge.commands.check.nats.client import API_SECONDS, Nats
from bridge.commands.check.nats.publish import try_to_publish
from bridge.commands.check.nats.remedies import LOG, USER_INFO, NatsTools
from bridge.commands.check.nats.rights import Rights, judge, rights
from bridge.commands.check.nats.stream import ONE_EACH, checks
from bridge.commands.check.test_message import CHECK
from bridge.contracts import Message
from bridge.errors import NotConnected, Refused
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.connect import Handlers, cluster_of, connect, discard
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.once import may_read
from bridge.sinks.jetstream.stream import CLUSTER_REPLICAS, NOT_ENABLED, no_jetstream

AREA = "NATS"


async def check_nats(settings: Settings, db: int, trial: Message | None) -> list[Row]:
    """All rows about NATS, up to the first without which the others make no sense. Raises ConfigurationError.

    `trial` is published, if there is one.
    """
    tools = NatsTools.of(settings, db)
    denials = Denials(JetStreamLimits().denials, tools.api)

    async def on_error(error: Exception) -> None:
        denials.note(str(error))

    async def on_change() -> None:
        """A connection that is lost shows in the answers that do not come."""

    try:
        client = await connect(settings, Handlers(on_error, on_change, on_change), SystemClock(), JetStreamLimits())
    except (NotConnected, Refused) as error:
        remedy = "start NATS there, or point BRIDGE_NATS_URL at where it is"
        return [Row(AREA, "connection", failed_with(error, remedy))]
    nats = Nats(client, tools.api.context(client, API_SECONDS), denials, tools)
    try:
        return [Row(AREA, "connection", _connection(client, settings)), *await _examine(nats, trial)]
    finally:
        await discard(client, SystemClock(), JetStreamLimits().close)


def _connection(client: Client, settings: Settings) -> Finding:
    url, version = client.connected_url, client.connected_server_version
    where = url.netloc.rpartition("@")[2] if url else "?"
    found = f"{where}, nats-server {version.major}.{version.minor}.{version.patch}"
    if client.max_payload < message_bytes(settings):
        return warning(
            f"{found}, takes up to {client.max_payload} bytes: messages {too_large(settings)} become dead letters",
            f"max_payload: {message_bytes(settings)} (or more) in the server's configuration",
        )
    return passed(found)


async def _examine(nats: Nats, trial: Message | None) -> list[Row]:
    found, known = await asyncio.gather(_look(nats), _rights(nats))
    rows: dict[str, Finding] = {}
    if isinstance(found, Finding):
        rows["JetStream"] = found
    else:
        rows["JetStream"] = await _account(nats, missing=found is None)
        if known is not None or trial is None:  # else trying it tells more
            rows["permissions"] = judge(known, nats.tools)
        rows |= await _stream(nats, found)
    if trial is not None and rows["JetStream"].level is not Level.FAIL:
        rows[CHECK] = await _try(nats, found, trial)
    return [Row(AREA, name, finding) for name, finding in rows.items()]


async def _rights(nats: Nats) -> Rights | None:
    """Those of the user; None where it may not ask, or the server does not tell."""
    try:
        return rights((await nats.ask(USER_INFO, nats.client.request(USER_INFO, timeout=API_SECONDS))).data)
    except (Error, ValueError):
        return None


async def _look(nats: Nats) -> StreamInfo | Finding | None:
    """The stream; None if there is none; or why that is unknown."""
    try:
        return await nats.ask(nats.tools.asked[0], nats.jetstream.stream_info(nats.tools.stream))
    except NotFoundError:
        return None
    except APIError as error:
        return _unusable(error, nats.tools)
    except NoAnswer:
        return _unanswered(nats)
    except Error as error:
        return failure(f"no answer: {error}", LOG)


def _unusable(error: APIError, tools: NatsTools) -> Finding:
    if error.err_code in NOT_ENABLED:
        return failure(
            "not enabled for this account",
            "enable it in the server's configuration: accounts { NAME { jetstream: enabled } }",
        )
    if isinstance(error, ServiceUnavailableError) and error.err_code is None:
        found = no_jetstream(tools.api)
        return failure(found.found, found.remedy)
    return failure(f"{error.description} (error {error.err_code})", LOG)


def _unanswered(nats: Nats) -> Finding:
    tools = nats.tools
    if nats.denials.subscription:
        return failure("the user may not receive answers", tools.permissions())
    if not nats.denials.api:
        return failure(f"no answer within {API_SECONDS:g} s", LOG)
    if tools.once:
        return failure("the user may not ask about streams", tools.permissions())
    if tools.provision:
        other = "or create the stream, and set BRIDGE_NATS_PROVISION=false"
        return failure("the user may not ask about streams", f"{tools.permissions()}; {other}")
    return warning("cannot be read: the user may not ask about streams", tools.permissions())


async def _account(nats: Nats, *, missing: bool) -> Finding:
    """JetStream answers. Whether there is room for more in it, for this account."""
    try:
        account = await nats.ask(nats.tools.account_info, nats.jetstream.account_info())
    except Error:  # it need not be allowed to ask
        return passed("enabled")
    streams, storage = account.limits.max_streams, account.limits.max_storage
    if missing and 0 <= streams <= account.streams:
        remedy = "raise max_streams in the account's jetstream { }, in the server's configuration; or delete a stream"
        return failure(f"this account has {account.streams} streams, and may not have more", remedy)
    if missing and (problem := _unbounded(account.limits, nats.tools)):
        return problem
    if storage < 0:
        return passed("enabled")
    found = f"{account.storage} of the {storage} bytes that this account may store"
    if account.storage + MESSAGE_BYTES > storage:
        return failure(f"full: it holds {found}", nats.tools.more_storage())
    return passed(f"enabled; it holds {found}")


def _unbounded(limits: AccountLimits, tools: NatsTools) -> Finding | None:
    """Why this account would not let the bridge create its stream."""
    wanted = tools.provision.max_bytes if tools.provision else 0
    if wanted < 0 and limits.max_bytes_required:
        return failure(
            "this account requires that every stream has a bound of bytes",
            "set BRIDGE_NATS_MAX_BYTES to what the stream may keep, in bytes",
        )
    allowed = limits.storage_max_stream_bytes
    if 0 < allowed < wanted:
        return failure(
            f"a stream of this account may keep {allowed} bytes, and BRIDGE_NATS_MAX_BYTES is {wanted}",
            f"set BRIDGE_NATS_MAX_BYTES to {allowed} or less",
        )
    return None


async def _stream(nats: Nats, info: StreamInfo | None) -> dict[str, Finding]:
    if info is None:
        return {"stream": await _missing(nats)}
    found = {name: check(info, nats.tools) for name, check in checks(info, nats.tools).items()}
    if ONE_EACH in found and found[ONE_EACH].level is Level.PASS and (problem := await _lookup(nats)):
        found[ONE_EACH] = problem
    return found


async def _lookup(nats: Nats) -> Finding | None:
    """Why the bridge could not look up messages that the stream says it has stored already."""
    tools = nats.tools
    try:
        await nats.ask(tools.lookup, may_read(nats.jetstream, tools.stream, tools.subjects.gap))
    except NoAnswer:
        return failure("the user may not look up messages, to know what is stored", tools.permissions())
    except Error as error:
        return failure(f"messages cannot be looked up: {error}", LOG)
    return None


async def _missing(nats: Nats) -> Finding:
    """What it means that the stream does not exist: whether it will be created, and can be."""
    tools = nats.tools
    subjects = ",".join(tools.subjects.provisioned)
    for subject in tools.subjects.provisioned:
        with suppress(Error):  # no stream binds it, or we may not ask
            other = await nats.ask(tools.stream_names, nats.jetstream.find_stream_name_by_subject(subject))
            return failure(
                f"{tools.stream} does not exist and cannot be created: stream {other} binds some of {subjects}",
                f"set BRIDGE_NATS_STREAM={other}, or change BRIDGE_NATS_SUBJECT",
            )
    found = f"{tools.stream} does not exist"
    clustered = cluster_of(nats.client) is not None
    create = tools.add(replicas=CLUSTER_REPLICAS) if clustered else tools.add()
    if not tools.provision:
        return failure(found, f"{create}; or set BRIDGE_NATS_PROVISION=true")
    found = f"{found} yet: the bridge creates it when it starts"
    if clustered and tools.provision.replicas == 1:
        return warning(f"{found}, with one replica: an ack will be kept by one server only, and lost with it", create)
    if not tools.bounds:
        return warning(
            f"{found}, and keeps every message until an operator deletes it",
            "set BRIDGE_NATS_RETENTION_HOURS or BRIDGE_NATS_MAX_BYTES to what its consumers need",
        )
    return passed(found)


async def _try(nats: Nats, found: StreamInfo | Finding | None, trial: Message) -> Finding:
    if found is None:
        again = "check again when it does: the bridge creates it when it starts, if it may"
        return warning(f"not tried: {nats.tools.stream} does not exist", again)
    bound = None if isinstance(found, Finding) else found.config.subjects or []
    return await try_to_publish(nats, bound, trial)
