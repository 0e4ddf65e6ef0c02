"""What fixes what `check` finds at NATS: the commands of its own tool, and the least that the bridge's user needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.settings import Settings
from bridge.sinks.jetstream.stream import DUPLICATE_WINDOW_SECONDS
from bridge.sinks.subjects import SubjectTemplate, covers, overlaps

USER_INFO = "$SYS.REQ.USER.INFO"
"""Where users ask about themselves."""
ACCOUNT_INFO, STREAM_NAMES = "$JS.API.INFO", "$JS.API.STREAM.NAMES"
INBOX = "_INBOX.>"
DUPLICATE_WINDOW = f"{DUPLICATE_WINDOW_SECONDS / 60:g}m"
LOG = "look into the log of the NATS server"


@dataclass(frozen=True, slots=True)
class NatsTools:
    """For the stream of these settings."""

    stream: str
    subjects: SubjectTemplate
    provision: bool

    @classmethod
    def of(cls, settings: Settings, db: int) -> "NatsTools":
        """Raises ConfigurationError: `BRIDGE_NATS_SUBJECT` cannot work."""
        return cls(settings.nats_stream, SubjectTemplate(settings.nats_subject, db), settings.nats_provision)

    @property
    def api(self) -> list[str]:
        """The subjects of the JetStream API that the bridge asks."""
        asked = [f"$JS.API.STREAM.INFO.{self.stream}"]
        return [*asked, f"$JS.API.STREAM.CREATE.{self.stream}"] if self.provision else asked

    def add(self, **options: object) -> str:
        """Create the stream as the bridge would, but for the options."""
        own = {"subjects": _quoted(self.subjects.published), "storage": "file", "dupe_window": DUPLICATE_WINDOW}
        return f"nats stream add {self.stream}{_options(own | options)} --defaults"

    def edit(self, **options: object) -> str:
        """Change the stream."""
        return f"nats stream edit {self.stream}{_options(options)}"

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
        """The least that the user needs, as the server's configuration has it."""
        publish = [*self.subjects.published, *self.api, ACCOUNT_INFO, USER_INFO]
        return (
            "give the user, in the server's configuration, permissions:"
            f" {{ publish: {{ allow: {json.dumps(publish)} }}, subscribe: {{ allow: {json.dumps([INBOX])} }} }}"
        )


def _quoted(subjects: Sequence[str]) -> str:
    """So that a shell leaves its wildcards alone."""
    return f"'{','.join(subjects)}'"


def _options(options: Mapping[str, object]) -> str:
    """Those of the command line; True stands for one without a value."""
    flags = {f" --{name.replace('_', '-')}": value for name, value in options.items()}
    return "".join(name if value is True else f"{name}={value}" for name, value in flags.items())
