"""What fixes what `check` finds at NATS: the commands of its own tool, and the least that the bridge's user needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.commands.check.findings import MESSAGE_BYTES, message_bytes, too_large
from bridge.settings import Settings
from bridge.sinks.jetstream.api import HERE, Api
from bridge.sinks.jetstream.once import LOOKUP, WINDOW_SECONDS
from bridge.sinks.jetstream.stream import DUPLICATE_WINDOW_SECONDS, Provision
from bridge.sinks.subjects import SubjectTemplate, covers, overlaps, subjects_of

USER_INFO = "$SYS.REQ.USER.INFO"
"""Where users ask about themselves."""
INBOX = "_INBOX.>"
MAX_AGE = "7d"
DUPLICATE_WINDOW = f"{DUPLICATE_WINDOW_SECONDS / 60:g}m"
LOG = "look into the log of the NATS server"


@dataclass(frozen=True, slots=True)
class NatsTools:
    """For the stream of these settings."""

    stream: str
    subjects: SubjectTemplate
    provision: Provision | None
    """None: the stream is not to be created."""
    api: Api = field(default_factory=Api)
    once: bool = False
    """Whether the stream is to take one message of a subject."""
    message_bytes: int = MESSAGE_BYTES
    """A limit below this is warned of."""
    too_large: str = ""
    """Which messages do not fit there."""

    @classmethod
    def of(cls, settings: Settings, db: int) -> "NatsTools":
        """Raises ConfigurationError: `BRIDGE_NATS_SUBJECT` cannot work."""
        provision = Provision.of(settings) if settings.nats_provision else None
        once = settings.nats_deduplication == "subject"
        subjects, large = subjects_of(settings, db), (message_bytes(settings), too_large(settings))
        return cls(settings.nats_stream, subjects, provision, Api.of(settings), once, *large)

    @property
    def asked(self) -> list[str]:
        """The subjects of the JetStream API that the bridge asks: first whether the stream is there."""
        asked = [self.api.subject(f"STREAM.INFO.{self.stream}")]
        if self.once:
            asked.append(self.lookup)
        return [*asked, self.api.subject(f"STREAM.CREATE.{self.stream}")] if self.provision else asked

    @property
    def lookup(self) -> str:
        """The subject of the JetStream API that reads a message."""
        return self.api.subject(f"{LOOKUP}.{self.stream}")

    @property
    def account_info(self) -> str:
        """The subject that reports about the account."""
        return self.api.subject("INFO")

    @property
    def stream_names(self) -> str:
        """The subject that finds streams."""
        return self.api.subject("STREAM.NAMES")

    @property
    def _nats(self) -> str:
        """The tool, with the place of the API."""
        return "nats" if self.api.prefix == HERE else f"nats --js-api-prefix='{self.api.prefix}'"

    def add(self, **options: object) -> str:
        """Create the stream as the bridge would, but for the options; with a bound, even where it would set none."""
        own: dict[str, object] = {"subjects": _quoted(self.subjects.published), "storage": "file"}
        own |= {"dupe_window": DUPLICATE_WINDOW} | self.one_each
        own |= self.bounds or {"max_age": MAX_AGE}
        return f"{self._nats} stream add {self.stream}{_options(own | options)} --defaults"

    @property
    def one_each(self) -> dict[str, object]:
        """What makes the stream take one message of a subject, as options of the tool."""
        if not self.once:
            return {}
        each: dict[str, object] = {"max_msgs_per_subject": 1, "discard": "new", "discard_per_subject": True}
        return each | {"dupe_window": f"{WINDOW_SECONDS:g}s"}

    @property
    def bounds(self) -> dict[str, str]:
        """What the settings ask for of a stream that the bridge creates, as options of the tool."""
        made = self.provision
        if made is None:
            return {}
        days, hours = divmod(made.retention_hours, 24)
        age = {"max_age": f"{made.retention_hours}h" if hours else f"{days}d"} if made.retention_hours > 0 else {}
        return age | ({"max_bytes": str(made.max_bytes)} if made.max_bytes > 0 else {})

    def edit(self, **options: object) -> str:
        """Change the stream."""
        return f"{self._nats} stream edit {self.stream}{_options(options)}"

    def bind(self, bound: Sequence[str] = ()) -> str:
        """Let the stream bind what the bridge publishes, and all of `bound`: no two of its subjects may overlap."""
        return self.edit(subjects=_quoted(self._with(bound)))

    def _with(self, bound: Sequence[str]) -> Sequence[str]:
        for wanted in (self.subjects.published, self.subjects.provisioned):
            kept = [pattern for pattern in bound if not any(covers(subject, pattern) for subject in wanted)]
            if not any(overlaps(pattern, subject) for pattern in kept for subject in wanted):
                return [*kept, *wanted]
        return self.subjects.provisioned

    @staticmethod
    def more_storage() -> str:
        """Let the account keep more."""
        return "raise max_file in the account's jetstream { }, in the server's configuration; or delete old messages"

    def permissions(self) -> str:
        """What gives the user the least that it needs."""
        return f"give the user, in the server's configuration, {self.least}"

    @property
    def least(self) -> str:
        """That, as the server's configuration has it."""
        publish = json.dumps([*self.subjects.published, *self.asked, self.account_info, USER_INFO])
        return f"permissions: {{ publish: {{ allow: {publish} }}, subscribe: {{ allow: {json.dumps([INBOX])} }} }}"


def _quoted(subjects: Sequence[str]) -> str:
    """So that a shell leaves its wildcards alone."""
    return f"'{','.join(subjects)}'"


def _options(options: Mapping[str, object]) -> str:
    """Those of the command line; True stands for one without a value."""
    flags = {f" --{name.replace('_', '-')}": value for name, value in options.items()}
    return "".join(name if value is True else f"{name}={value}" for name, value in flags.items())
