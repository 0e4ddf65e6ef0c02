"""The NATS subjects of keys: a template, and an encoding under which any key is a valid token.

Of a key (or of each of its `:`-separated parts), every byte that a NATS token may not hold (controls, space, `.`, `*`,
`>`, anything outside ASCII), `%` itself, and a leading `_` become `%XX`; an empty part is `_`. So no two parts share a
token, and no key can have the token `_gap`, which is the gap record's.

The gap record's subject is the template with `_gap` in the place of `{prefix}` and `{key}`; a template with neither
gets it as a further token. So `expired.{db}.{prefix}` has `expired.0._gap`. The test message's of `expiry-bridge check`
has `_check` in those places; where there are none, it goes where gap records go, since streams bind that.

With `BRIDGE_NATS_DEDUPLICATION=subject` the id of the message is a further token, the last one: no two messages share a
subject.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from bridge.contracts import Message
from bridge.errors import ConfigurationError
from bridge.expiration import CHECK_KEY
from bridge.settings import Settings

GAP, CHECK = "_gap", "_check"
ID = "{id}"
PREFIXES_CACHED = 4096
CACHED_BYTES = 256
"""Of a prefix that is cached."""
MAX_SUBJECT_BYTES = 3900
"""The server closes the connection on a protocol line over 4096 bytes; the rest is for the reply subject and sizes."""
TOO_LONG = "_" * (MAX_SUBJECT_BYTES + 1)
"""Stands for the subject of a key that is too long for any subject. Encoding it would waste time and memory."""

_SAFE_BYTES = rb"[!-$&-)+,\-/-=?-~]"  # printable ASCII without space % * . >
_SAFE_PART = re.compile(rb"(?!_)" + _SAFE_BYTES + rb"+")
_UNSAFE_BYTE = re.compile(rb"\A_|(?!" + _SAFE_BYTES + rb").", re.DOTALL)
_SAFE_PARTS = re.compile(rb"(?!_)X+(?::(?!_)X+)*".replace(b"X", rb"[!-$&-)+,\-/-9;-=?-~]"))  # here without the colon

_TEMPLATE_TOKEN = re.compile(r"(?:[^\s.*>{}\x00-\x1f\x7f]|\{(?:db|prefix|key)\})+")


def encode_token(part: bytes) -> str:
    """`part` as one NATS token. Injective; never empty."""
    if _SAFE_PART.fullmatch(part):
        return part.decode("ascii")
    return _UNSAFE_BYTE.sub(lambda match: b"%%%02X" % match[0][0], part).decode("ascii") or "_"


def encode_parts(key: bytes) -> str:
    """The `:`-separated parts of `key` as tokens."""
    if _SAFE_PARTS.fullmatch(key):  # the usual key, at once
        return key.decode("ascii").replace(":", ".")
    return ".".join(map(encode_token, key.split(b":")))


def covers(pattern: str, subject: str) -> bool:
    """Whether `pattern` matches everything that `subject` stands for. Both may hold wildcards."""
    have, want = pattern.split("."), subject.split(".")
    for position, part in enumerate(have):
        if part == ">":
            return len(want) > position
        if position >= len(want) or want[position] == ">" or part not in {"*", want[position]}:
            return False
    return len(have) == len(want)


def overlaps(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


class SubjectTemplate:
    """`BRIDGE_NATS_SUBJECT` for one database."""

    def __init__(self, template: str, db: int) -> None:
        """Raises ConfigurationError: the template cannot give valid subjects, or could give some of another's."""
        tokens = template.split(".")
        if template.startswith("$") or not all(map(_TEMPLATE_TOKEN.fullmatch, tokens)):
            raise ConfigurationError(
                ["BRIDGE_NATS_SUBJECT: must be tokens joined by dots, of {db}, {prefix}, {key} and ordinary characters"]
            )
        if "{" in tokens[0]:  # a key could put itself into the subjects of others, even those of the NATS server
            raise ConfigurationError(
                ["BRIDGE_NATS_SUBJECT: the first token must be fixed, as in expired.{db}.{prefix}"]
            )
        self._tokens = tokens
        self._db = str(db)
        self._template = template.replace("{db}", self._db)
        self._pieces = re.split(r"(\{prefix\}|\{key\})", self._template)
        self.of: Callable[[bytes], str] = self._make()
        """The subject of a key's expiration."""

    def _make(self) -> Callable[[bytes], str]:
        if "{key}" in self._template:
            return self._of_key
        if "{prefix}" not in self._template:
            return lambda _key: self._template
        of_short = lru_cache(maxsize=PREFIXES_CACHED)(self._of_prefix)

        def of(key: bytes) -> str:
            prefix = key.partition(b":")[0]
            return of_short(prefix) if len(prefix) <= CACHED_BYTES else self._of_prefix(prefix)

        return of

    def _of_key(self, key: bytes) -> str:
        if len(key) > MAX_SUBJECT_BYTES:
            return TOO_LONG
        return self._fill(encode_token(key.partition(b":")[0]), encode_parts(key))

    def _of_prefix(self, prefix: bytes) -> str:
        return TOO_LONG if len(prefix) > MAX_SUBJECT_BYTES else self._fill(encode_token(prefix), "")

    def _fill(self, prefix: str, key: str) -> str:
        values = {"{prefix}": prefix, "{key}": key}
        return "".join([values.get(piece, piece) for piece in self._pieces])  # in one go: a key may look like {key}

    def of_message(self, message: Message) -> str:
        """The subject of a message."""
        if message.gap:
            return self.check if message.key == CHECK_KEY else self.gap
        return self.of(message.key)

    def filter(self, key: bytes) -> str:
        """What a consumer of a key's expirations subscribes to."""
        return self.of(key)

    def without_key(self, message: Message) -> str:
        """The subject of a message, with the template's own words in the place of what comes from a key."""
        return self.of_message(message) if message.gap else self._template

    @property
    def gap(self) -> str:
        """The subject of this database's gap records."""
        return self._fill(GAP, GAP) if self._keyed else f"{self._template}.{GAP}"

    @property
    def check(self) -> str:
        """The subject of this database's test messages."""
        return self._fill(CHECK, CHECK) if self._keyed else self.gap

    @property
    def _keyed(self) -> bool:
        """Whether the subject depends on the key."""
        return "{prefix}" in self._template or "{key}" in self._template

    @property
    def published(self) -> list[str]:
        """Wildcard subjects that match everything of this database: expirations and gap records."""
        return self._wildcards(self._db)

    @property
    def provisioned(self) -> list[str]:
        """What a stream for this template binds: the same, of every database, so that they may share the stream."""
        return self._wildcards("*")

    def _wildcards(self, db: str) -> list[str]:
        bound: list[str] = []
        for token in self._tokens:
            if "{key}" in token:
                return [".".join([*bound, ">"])]
            if "{prefix}" in token or ("{db}" in token and db == "*"):
                bound.append("*")
            else:
                bound.append(token.replace("{db}", db))
        subject = ".".join(bound)
        keyed = any("{prefix}" in token for token in self._tokens)
        return [subject] if keyed else [subject, f"{subject}.{GAP}"]


class IdentifiedSubjects(SubjectTemplate):
    """The same with the id of the message as the last token. Ids are hexadecimal digits."""

    def __init__(self, template: str, db: int) -> None:
        """Raises ConfigurationError as `SubjectTemplate` does. The template may end in the token `{id}`, or not."""
        super().__init__(template.removesuffix(f".{ID}"), db)

    def of_message(self, message: Message) -> str:
        """See `SubjectTemplate`."""
        return f"{super().of_message(message)}.{message.id}"

    def filter(self, key: bytes) -> str:
        """See `SubjectTemplate`."""
        return f"{super().filter(key)}.*"

    def without_key(self, message: Message) -> str:
        """See `SubjectTemplate`. Without the id, too."""
        return f"{super().of_message(message) if message.gap else self._template}.{ID}"

    def _wildcards(self, db: str) -> list[str]:
        return [subject if subject.endswith(">") else f"{subject}.*" for subject in super()._wildcards(db)]


def subjects_of(settings: Settings, db: int) -> SubjectTemplate:
    """Those of these settings, for one database. Raises ConfigurationError: `BRIDGE_NATS_SUBJECT` cannot work."""
    kind = IdentifiedSubjects if settings.nats_deduplication == "subject" else SubjectTemplate
    return kind(settings.nats_subject, db)
