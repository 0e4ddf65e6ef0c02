"""The stream: looked up, created if missing and wanted, checked, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.settings import Settings
from bridge.sinks.jetstream import once
from bridge.sinks.jetstream.api import HERE, Api
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.subjects import covers, overlaps

DUPLICATE_WINDOW_SECONDS = 600.0
"""Of a stream that is created here."""
RETRY_HORIZON_SECONDS = 120.0
"""Within which a message whose ack was lost is sent again, in the usual cases: by the sink, by the delivery loop's
back-off, after a restart of the broker or of the bridge. A shorter duplicate window lets such copies through.
"""

CLUSTER_REPLICAS = 3
"""Copies in a stream that is created here, in a cluster: of two, one that is lost would stop the other."""

NO_PEERS = 10005
NO_CLUSTER = 10074
"""More than one copy was asked for, and too few servers are there; or one that is in no cluster."""
NAME_IN_USE = 10058
SUBJECTS_OVERLAP = 10065
BOUNDS = frozenset({10113, 10122, 10047})
"""The account requires a bound of bytes; this one is more than it allows; more than it has left."""
NOT_ENABLED = frozenset({10039, 10076})  # for this account; at all


@dataclass(frozen=True, slots=True)
class Provision:
    """What a stream that is created here is like, beyond its subjects."""

    replicas: int | None
    """None: as many as keep it going without one of its servers, where it can have them."""
    retention_hours: int
    """Not greater than 0: without end."""
    max_bytes: int
    """-1: without a bound."""

    @classmethod
    def of(cls, settings: Settings) -> "Provision":
        """What these settings say."""
        return cls(settings.nats_replicas, settings.nats_retention_hours, settings.nats_max_bytes)


def no_jetstream(api: Api) -> Refused:
    """Nobody listens on the subjects of its API."""
    if api.prefix != HERE:
        return Refused(
            f"no JetStream answers to {api.prefix}",
            "check BRIDGE_NATS_DOMAIN or BRIDGE_NATS_API_PREFIX, and the leaf node or the import that leads there",
        )
    return Refused(
        "the NATS server has no JetStream",
        "start it with --jetstream; or set BRIDGE_NATS_DOMAIN where it is behind a leaf node, BRIDGE_NATS_API_PREFIX"
        " where it is imported",
    )


def in_cluster(info: StreamInfo) -> bool:
    """Whether its server is one of several. A server by itself names a leader, too, but no cluster."""
    return info.cluster is not None and info.cluster.name is not None


class Stream:
    """One stream, by name, on one connection."""

    def __init__(self, jetstream: JetStreamContext, denials: Denials, context: Context, *, alone: bool) -> None:
        """`alone`: its server is known to be in no cluster."""
        settings = context.settings
        self._api = Api.of(settings)
        self._jetstream = jetstream
        self._denials = denials
        self._name = settings.nats_stream
        self._subjects = context.subjects
        self._once = context.once
        self._events = context.events
        self._provision = Provision.of(settings) if settings.nats_provision else None
        """None: it is not to be created."""
        self._replicas = 1 if alone else CLUSTER_REPLICAS
        """Of a stream that is created, unless the settings say how many."""
        self._context = context
        self._bound: list[str] | None = None
        self._bound_since = 0.0
        """Since when it is known to have these subjects, monotonic seconds."""

    async def prepare(self) -> None:
        """Check the stream; create it if it is missing and wanted.

        Raises Refused: it is missing or cannot work. NotConnected: no answer, now.
        """
        try:
            info = await self._lookup()
            if info is None and self._provision:
                info = await self._create(self._provision)
        except NoAnswer:
            if not self._denials.api:
                raise NotConnected("NATS does not answer the JetStream API") from None
            self._unchecked()
            return
        if info is None:
            wanted = ", ".join(self._subjects.published)
            raise Refused(
                f"stream {self._name} does not exist",
                f"create it with the subjects {wanted}, or set BRIDGE_NATS_PROVISION=true",
            )
        if self._once:
            await self._check_once(info.config)
        self._check(info.config)
        if in_cluster(info) and info.config.num_replicas == 1:
            self._warn(
                f"stream {self._name} has one copy, in a cluster: while its server is down nothing can be published,"
                f" and its disk is all there is; give it {CLUSTER_REPLICAS} replicas"
            )

    async def missing(self, subjects: Mapping[int, str]) -> dict[int, str]:
        """See `once.missing`."""
        return await once.missing(self._jetstream, self._name, subjects)

    async def route(self, subjects: dict[int, str]) -> tuple[dict[int, str], str]:
        """Messages (by index, with their subjects) found no stream: why each never will, for those that never will.

        And why the others found none: the stream was missing (it is created again, if wanted), or not ready. That it
        does not bind a subject may be a mistake of a moment.
        """
        try:
            info = await self._lookup()
            if info is None and self._provision:
                await self._create(self._provision)
        except (Error, Refused, NotConnected) as error:
            return {}, f"stream {self._name} cannot be looked up: {error}"
        if info is None:
            what = "is created again" if self._provision else "does not exist: create it"
            return {}, f"stream {self._name} {what}"
        bound = info.config.subjects or []
        reason = f"stream {self._name} does not bind the message's subject; it binds {', '.join(bound)}"
        never = [i for i, subject in subjects.items() if not any(covers(pattern, subject) for pattern in bound)]
        if never and not self._settled(bound):
            return {}, reason
        return dict.fromkeys(never, reason), f"stream {self._name} did not answer"

    def _settled(self, bound: list[str]) -> bool:
        """Whether it has these subjects for a while."""
        now = self._context.clock.monotonic()
        if bound != self._bound:
            self._bound, self._bound_since = bound, now
        return now - self._bound_since >= self._context.limits.unbound

    async def _lookup(self) -> StreamInfo | None:
        try:
            return await self._jetstream.stream_info(self._name)
        except NotFoundError:
            return None
        except APIError as error:
            raise self._translated(error) from None

    async def _create(self, provision: Provision) -> StreamInfo:
        hours = provision.retention_hours
        config = StreamConfig(
            name=self._name,
            description="Redis key expirations",
            subjects=self._subjects.provisioned,
            storage=StorageType.FILE,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            allow_direct=True,
            num_replicas=provision.replicas or self._replicas,
            max_age=hours * 3600 if hours > 0 else None,
            max_bytes=provision.max_bytes,
        )
        if self._once:
            config = once.configured(config)
        try:
            return await self._jetstream.add_stream(config)
        except APIError as error:
            if error.err_code == NO_CLUSTER and provision.replicas is None:
                return await self._create(replace(provision, replicas=1))
            if error.err_code == NAME_IN_USE:  # another bridge was faster
                return await self._jetstream.stream_info(self._name)
            raise self._uncreated(error, config.num_replicas or 1) from None

    def _uncreated(self, error: APIError, replicas: int) -> Refused | NotConnected:
        if error.err_code == SUBJECTS_OVERLAP:
            return Refused(
                f"stream {self._name} cannot be created: another stream binds some of"
                f" {', '.join(self._subjects.provisioned)}",
                "name that stream in BRIDGE_NATS_STREAM, or change BRIDGE_NATS_SUBJECT",
            )
        if error.err_code in BOUNDS:
            return Refused(
                f"stream {self._name} cannot be created: {error.description}",
                "set BRIDGE_NATS_MAX_BYTES to what the account allows for each replica",
            )
        if error.err_code == NO_CLUSTER:
            return Refused(
                f"stream {self._name} cannot be created with {replicas} replicas: the NATS server is in no cluster",
                "set BRIDGE_NATS_REPLICAS=1, or leave it unset",
            )
        if error.err_code == NO_PEERS:  # a stream with fewer copies would stay like that
            return NotConnected(
                f"stream {self._name} cannot be created with {replicas} replicas now ({error.description})",
                "start the other servers of the cluster, or set BRIDGE_NATS_REPLICAS to what it can hold",
            )
        return self._translated(error)

    def _check(self, config: StreamConfig) -> None:
        bound = config.subjects or []
        wanted = self._subjects.published
        names = f"stream {self._name} binds {', '.join(bound) or 'no subjects'}"
        if not any(overlaps(pattern, subject) for pattern in bound for subject in wanted):
            remedy = f"add {', '.join(wanted)} to it, or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM"
            raise Refused(names, remedy)
        if config.sealed or config.no_ack:
            what = "is sealed" if config.sealed else "acks nothing (no_ack)"
            raise Refused(f"stream {self._name} {what}", "name another one in BRIDGE_NATS_STREAM, or change it")
        missing = [subject for subject in wanted if not any(covers(pattern, subject) for pattern in bound)]
        if missing:
            self._warn(f"{names}, not all of {', '.join(missing)}: other messages become dead letters")
        if config.duplicate_window < RETRY_HORIZON_SECONDS and not self._once:
            self._warn(
                f"stream {self._name} has a duplicate window of {config.duplicate_window:g} s: what is sent again later"
                f" than that is stored twice; set it to {DUPLICATE_WINDOW_SECONDS:g} s"
            )
        if config.storage == StorageType.MEMORY:
            self._warn(f"stream {self._name} is kept in memory: what is acked is lost when its servers stop")
        if config.retention == RetentionPolicy.INTEREST and not self._once:
            self._warn(f"stream {self._name} has interest retention: what no consumer waits for is dropped")

    async def _check_once(self, config: StreamConfig) -> None:
        """With `BRIDGE_NATS_DEDUPLICATION=subject`: it must refuse repeats, and say which messages it has."""
        if why := once.unfit(config):
            raise Refused(f"stream {self._name} does not suit BRIDGE_NATS_DEDUPLICATION=subject: {why}", once.MOVE)
        try:
            await once.may_read(self._jetstream, self._name, self._subjects.gap)
        except NoAnswer:
            if not self._denials.api:
                raise NotConnected("NATS does not answer the JetStream API") from None
            raise Refused(
                f"the NATS user may not look up messages of stream {self._name}",
                f"allow it to publish to {self._api.subject(once.LOOKUP)}.{self._name}",
                ErrorKind.DENIED,
            ) from None
        except APIError as error:
            raise self._translated(error) from None

    def _unchecked(self) -> None:
        """The user may not ask about streams: to be fixed, unless publishing is all that was wanted."""
        info = self._api.subject(f"STREAM.INFO.{self._name}")
        if self._provision or self._once:
            create = f" and {self._api.subject(f'STREAM.CREATE.{self._name}')}" if self._provision else ""
            other = "" if self._once else ", or set BRIDGE_NATS_PROVISION=false"
            raise Refused(
                "the NATS user may not use the JetStream API",
                f"allow it to publish to {info}{create}{other}",
                ErrorKind.DENIED,
            )
        self._warn(f"stream {self._name} is not checked: the user may not publish to {info}")

    def _warn(self, text: str) -> None:
        self._events.stream_warned(text)

    def _translated(self, error: APIError) -> Refused | NotConnected:
        if error.err_code in NOT_ENABLED:
            return Refused("JetStream is not enabled for this NATS account", "enable it in the server's configuration")
        if isinstance(error, ServiceUnavailableError):
            if error.err_code is None:  # nothing listens on the API's subjects
                return no_jetstream(self._api)
            return NotConnected(f"JetStream is not ready: {error.description}")
        return Refused(f"stream {self._name}: {error.description} (error {error.err_code})")
