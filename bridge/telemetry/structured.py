"""structlog, without rich: if that is installed, structlog imports it, which takes as long as all of the settings.

We print tracebacks ourselves, so it would never be used. `expiry-bridge demo`, which needs rich, has its own.
"""

import sys
from typing import Any, Final, cast

_RICH: Final = "rich"

if _RICH in sys.modules:
    import structlog
else:
    sys.modules[_RICH] = cast("Any", None)  # to import it fails, as if it were not installed
    try:
        import structlog
    finally:
        del sys.modules[_RICH]

__all__ = ["structlog"]
