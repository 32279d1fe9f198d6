"""structlog, on stderr: the study bound to the context, JSON or console, no names of people.

What may be logged at info and above: UIDs, AE titles, addresses, reasons. A patient's name, ID or birth date is never
passed to a logger at any level.
"""

import logging
import sys
import warnings
from typing import Any

import structlog


def configure(level: str, form: str) -> None:
    """Set up logging for this process.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `console` or `json`.
    """
    threshold = getattr(logging, level.upper())
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # pynetdicom and pydicom would print values of data sets; what matters of theirs, our own lines say.
    for name in ("pynetdicom", "pydicom", "highdicom", "apscheduler", "alembic"):
        library = logging.getLogger(name)
        library.handlers[:] = [logging.NullHandler()]
        library.propagate = False
        library.setLevel(logging.CRITICAL)
    # pydicom also warns with the value itself; a malformed birth date must not reach stderr.
    warnings.filterwarnings("ignore", module=r"pydicom\b")
