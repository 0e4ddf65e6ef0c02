"""The message that `expiry-bridge check --publish` sends, to a broker that is otherwise only looked at.

It is a CloudEvent of a type of its own (`redis.expiry.check`), under a key and, on JetStream, a subject that no key can
have: whoever reads only the subjects of keys never sees it, and whoever reads all has to tell types apart anyway.
"""

import time
import uuid

from bridge.cloudevents import Encoder
from bridge.contracts import Message
from bridge.settings import Settings

CHECK = "test publish"


def message(settings: Settings, db: int) -> Message:
    """One with an id of its own: a broker takes no earlier one for its copy."""
    return Encoder(settings.source, db, settings.content_mode).trial(uuid.uuid4().hex, int(time.time() * 1000))
