"""structlog, on stderr: the study bound to the context, JSON or console, no names of people.

What may be logged: UIDs, AE titles, addresses, reasons in our own words. A patient's ID or accession number is passed
to a logger in `phi=` alone, which is dropped, and a traceback goes without the messages of foreign exceptions: they
quote what they could not read. `serve --log-phi` lets both through. Whatever a text of others holds, it begins no line
and moves no cursor.
"""

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, ExcInfo

from pacs_agent.errors import PacsAgentError
from pacs_agent.printable import printable


def configure(level: str, form: str, *, with_phi: bool = False) -> None:
    """Set up logging for this process.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `console` or `json`.
        with_phi: whether what identifies a patient may be logged.
    """
    threshold = getattr(logging, level.upper())
    rendering: list[Any] = [structlog.processors.JSONRenderer()]  # which escapes whatever is not ASCII
    if form == "console":
        colours = sys.stderr.isatty()
        console = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        rendering = [_printable, console]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if with_phi else [_without_phi]),
            structlog.processors.ExceptionRenderer(_traceback_with_messages if with_phi else _traceback),
            *rendering,
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
    threading.excepthook = _log_thread
    # They also warn with the value itself; a malformed birth date or an odd name must not reach stderr.
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom|pynetdicom)\b")


def _without_phi(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event.pop("phi", None)
    return event


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # Of what is no text the renderer writes the repr, which escapes; a traceback's lines are its own (`_told`).
    return {
        key: printable(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """A thread that an exception ended, pynetdicom's above all: one of our lines instead of Python's traceback."""
    if ended.exc_value is not None:
        structlog.get_logger().error(
            "a thread ended by an error",
            thread=ended.thread.name if ended.thread else None,
            exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback),
        )


def _traceback(exc_info: ExcInfo) -> str:
    return _told(exc_info, _own_words)


def _traceback_with_messages(exc_info: ExcInfo) -> str:
    return _told(exc_info, lambda error: f": {error}")


def _told(exc_info: ExcInfo, words: Callable[[BaseException], str]) -> str:
    """The frames and kinds of an exception and of what it came from, the first cause first."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}{printable(words(error))}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nled to\n".join(reversed(parts))


def _own_words(error: BaseException) -> str:
    if isinstance(error, PacsAgentError):
        return f": {error}"
    return f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
