"""Structured logs: JSON lines for machines, columns for a terminal. Nothing here ever holds a secret.

Lines at INFO and above hold no user keys (they may be personal data).
"""

import logging
import sys
from typing import Literal

import structlog

Format = Literal["console", "json"]


def configure(level: str, chosen: Format | None) -> None:
    """Send log lines of `level` and above to stderr (stdout belongs to the stdout sink).

    `chosen` None: `console` where stderr is a terminal, else `json`.
    """
    terminal = sys.stderr.isatty()
    console = chosen == "console" or (chosen is None and terminal)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Client libraries log what we report ourselves, with less sense; only their errors are worth a line.
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(name)s: %(message)s", force=True)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def failed(error: BaseException) -> None:
    """The process ends because of what nobody expected: the traceback goes along."""
    structlog.get_logger().error("bridge.failed", error=str(error) or type(error).__name__, exc_info=error)
