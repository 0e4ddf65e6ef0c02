"""The page as it is sent, with headers that keep it to itself: it may run its own script, and ask its own server."""

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

PROTECTED: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
"""Headers of all that is about the status."""


@dataclass(frozen=True, slots=True)
class Page:
    """The page of `/`."""

    text: str
    headers: dict[str, str]

    @classmethod
    def read(cls) -> "Page":
        """Put together from the files of this package: the style and the script stand in the page itself."""
        here = files(__package__)
        style, script = ((here / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
        page = (here / "page.html").read_text(encoding="utf-8")
        page = page.replace("{style}", style).replace("{script}", script)
        policy = [
            "default-src 'none'",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
        return cls(page, PROTECTED | {"Content-Security-Policy": "; ".join(policy)})


def _source(text: str) -> str:
    """What permits just this text, inline."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
