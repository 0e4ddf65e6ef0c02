"""The settings: what can be set (`model`, of `values`), how it is read (`loading`), shown (`reference`, `effective`).

`load` is the one reader of the environment: flags win over the environment, that over `.env`, that over the defaults.
An empty value is an unset one everywhere (Compose passes `BRIDGE_X=` for what its user left out).
"""

from bridge.settings.agreement import agreement
from bridge.settings.effective import Effective, effective
from bridge.settings.group import variable
from bridge.settings.loading import exposed, load, log_format
from bridge.settings.model import SECRETS, Settings
from bridge.settings.places import places
from bridge.settings.redis_url import RedisAddress
from bridge.settings.reference import default, description, reference
from bridge.settings.values import SinkKind, redact_url

__all__ = [
    "SECRETS",
    "Effective",
    "RedisAddress",
    "Settings",
    "SinkKind",
    "agreement",
    "default",
    "description",
    "effective",
    "exposed",
    "load",
    "log_format",
    "places",
    "redact_url",
    "reference",
    "variable",
]
