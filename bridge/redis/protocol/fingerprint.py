"""The fingerprint of a bridge: the settings on which all bridges of one ledger have to agree.

Whoever takes the lease leaves its own there, with its fence, so that a bridge which stands by, or takes over, sees how
it differs. An older version leaves none: what lies there then has another fence, and does not count. A difference stops
nobody, since settings are changed in one bridge after the other. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

Fingerprint = Mapping[str, str]
"""The variables and their values, as text."""

_LONGEST = 200
"""Characters of a value. Of a longer one there is only a digest."""


def packed(settings: Fingerprint) -> bytes:
    """As it is kept."""
    return json.dumps({name: _short(value) for name, value in sorted(settings.items())}).encode()


def unpacked(text: bytes) -> Fingerprint:
    """The inverse of `packed`; empty where there is none, or somebody else's."""
    try:
        settings = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(settings, dict):
        return {}
    return {name: value for name, value in settings.items() if isinstance(value, str)}


def differences(there: Fingerprint, here: Fingerprint) -> Sequence[str]:
    """In words: what a bridge has set otherwise. What only one of the two knows of is no difference."""
    return [
        f"{name} is {there[name]!r} there, and {_short(value)!r} here"
        for name, value in sorted(here.items())
        if name in there and there[name] != _short(value)
    ]


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:40]}… ({blake2b(value.encode(), digest_size=8).hexdigest()})"
