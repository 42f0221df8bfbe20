"""structlog: one event per fact, JSON when standard error is not a terminal, ids bound.

Log lines carry identifiers, counts and codes; never a field value of a record.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger, Processor

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str, style: str, agency: str) -> FilteringBoundLogger:
    """Set up the process's log and return its logger, bound to ``agency``.

    Args:
        level: debug, info, warning or error.
        style: json, text, or auto (JSON unless standard error is a terminal).
        agency: whose node this is; in every line.
    """
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The default shows the locals of every frame where rich is installed: keys, passphrases.
        plain = structlog.dev.plain_traceback
        processors.append(
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("hypercorn").setLevel(logging.ERROR)
    logger: FilteringBoundLogger = structlog.get_logger(agency=agency)
    listeners = logging.getLogger("trio.serve_listeners")
    listeners.handlers, listeners.propagate = [_Told(logger)], False
    return logger


class _Told(logging.Handler):
    """Has what a library logs told as one event, without its traceback."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it."""
        self._log.warning("no connection taken", reason=record.getMessage())
