"""Programs that come as Python wheels."""

import os
from importlib import metadata
from pathlib import Path

from bridge.commands.embedded.server import Unavailable


def wheel_program(distribution: str, name: str) -> Path:
    """The program `name` that the installed wheel `distribution` brought along."""
    remedy = f"install it with: pip install 'expiry-bridge[demo]' (it is in {distribution})"
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        raise Unavailable(f"{name} is not installed; {remedy}") from None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name == name and os.access(path, os.X_OK):
            return path
    raise Unavailable(f"{distribution} has no {name} for this system")
