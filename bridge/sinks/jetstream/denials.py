"""What the server said this user may not do.

A denied publish gets no answer, only an asynchronous `-ERR 'Permissions Violation for Publish to "subject"'`, which the
client library hands on in lower case. So a subject cannot always be told from one that differs in case only: `Denials`
says "perhaps", and whoever asks takes a missing ack as the proof.
"""

import re

from bridge.sinks.jetstream.api import Api

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) (?:with reply of ".*" )?to "(.*)"')


class Denials:
    """The denials of one connection."""

    def __init__(self, most: int, api: Api) -> None:
        """`most`: how many subjects are remembered. The others are sent again until they count as not acked."""
        self._most = most
        self._api = f"{api.prefix.lower()}."
        self._subjects: set[str] = set()
        self.subscription = False
        """Whether a subscription was denied. The sink has only one: its inbox."""

    def note(self, error: str) -> bool:
        """Remember what `error`, an error text of the client library, denies. False: it denies nothing."""
        found = _VIOLATION.search(error.lower())
        if found is None:
            return False
        if found[1] == "subscription":
            self.subscription = True
        elif len(self._subjects) < self._most:
            self._subjects.add(found[2])
        return True

    def perhaps(self, subject: str) -> bool:
        """Whether a publish to `subject`, or to one that differs in case only, was denied."""
        quoted = subject.replace("\\", "\\\\").replace('"', '\\"')  # as the server quotes it
        return quoted.lower() in self._subjects

    def __bool__(self) -> bool:
        """Whether any publish was denied."""
        return bool(self._subjects)

    @property
    def api(self) -> bool:
        """Whether a request to the JetStream API was denied."""
        return any(subject.startswith(self._api) for subject in self._subjects)
