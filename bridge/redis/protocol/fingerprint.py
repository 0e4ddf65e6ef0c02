"""The fingerprint of a bridge: the settings on which all bridges of one ledger have to agree.

A bridge that takes the lease stores its own fingerprint there, with its fence. So a standby, or the next holder, sees
how it differs. An older version stores none: what is there then has another fence, and does not count. A difference
stops no bridge, because settings are changed in one bridge after the other. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

Fingerprint = Mapping[str, str]
"""The variables and their values, as text."""

_LONGEST = 200
"""The longest value, in characters. A longer one is replaced by its digest."""


def packed(settings: Fingerprint) -> bytes:
    """As it is stored."""
    return json.dumps({name: _short(value) for name, value in sorted(settings.items())}).encode()


def unpacked(text: bytes) -> Fingerprint:
    """The inverse of `packed`; empty if there is none, or if no bridge has written it."""
    try:
        settings = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(settings, dict):
        return {}
    return {name: value for name, value in settings.items() if isinstance(value, str)}


def differences(there: Fingerprint, here: Fingerprint) -> Sequence[str]:
    """In words: which settings of the other bridge differ. A setting that only one of the two has does not count."""
    return [
        f"{name} is {_shown(there[name])} there, and {_shown(_short(value))} here"
        for name, value in sorted(here.items())
        if name in there and there[name] != _short(value)
    ]


def _shown(value: str) -> str:
    """The value for the reader. An unset one was packed as Python writes it."""
    return "unset" if value == str(None) else repr(value)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:40]}… ({blake2b(value.encode(), digest_size=8).hexdigest()})"
