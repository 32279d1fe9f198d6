"""The commands; the only folder that prints or exits. Results on stdout, progress and errors on stderr.

Exit codes: 0 good, 1 it ran and the answer is no, 2 used wrongly (one line, no traceback). They are decided in `main`.

A command imports what it needs when it is called, so that `--help` is quick.
"""

import os
import sqlite3
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from pacs_agent import __version__
from pacs_agent.cli import asking, deciding, evaluating, keeping, offline, running
from pacs_agent.cli.printing import line, note
from pacs_agent.errors import (
    DatabaseError,
    DeliveryError,
    OutOfResourcesError,
    PacsAgentError,
    StatementError,
    StationError,
    WorkerDiedError,
)

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

# Used rightly, and the answer is no. Every other `PacsAgentError` says that a setting or an argument is wrong.
ANSWER_IS_NO = (DatabaseError, DeliveryError, OutOfResourcesError, StationError, WorkerDiedError)
INTERRUPTED = 130  # as a shell reports SIGINT

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
model_app = typer.Typer()
truth_app = typer.Typer()

for command in (
    *(running.serve, running.demo, running.init, running.check, running.send),
    *(asking.results, asking.show, asking.status, asking.sql),
    *(deciding.pause, deciding.resume, deciding.reanalyse, deciding.retry),
    *(deciding.accept, deciding.withdraw, deciding.release),
    *(evaluating.compare, evaluating.site_report),
    *(keeping.backup, keeping.restore, keeping.rebuild, keeping.export),
    offline.predict,
):
    app.command()(command)
app.add_typer(model_app, name="model")
model_app.command("info")(offline.model_info)
model_app.command("verify")(offline.model_verify)
app.add_typer(truth_app, name="truth")
truth_app.command("import")(evaluating.truth_import)
truth_app.command("list")(evaluating.truth_list)


def _print_version(wanted: bool) -> None:
    if wanted:
        line(f"pacs-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Radiographs in by C-STORE, a structured report back to the PACS, the story in SQL.

    Research software: not a medical device; its results must not influence care.

    Example: pacs-agent demo
    """


@model_app.callback()
def _model() -> None:
    """What a model bundle is, and whether its hash holds.

    Example: pacs-agent model info demonstration
    """


@truth_app.callback()
def _truth() -> None:
    """What the site knows to be true of its studies.

    Example: pacs-agent truth import reviewed.csv
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; what was foreseen is one line, never a traceback."""
    try:
        code = app(args=arguments, prog_name="pacs-agent", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        code = _used_wrongly(error)
    except BrokenPipeError:  # who read our output has seen enough
        code = _give_up_stdout()
    except typer.Abort:
        code = INTERRUPTED
    except PacsAgentError as error:
        is_no = isinstance(error, ANSWER_IS_NO) and not isinstance(error, StatementError)
        code = _said(str(error), 1 if is_no else 2)
    except sqlite3.Error as error:
        code = _said(f"the database: {error}", 1)
    except OSError as error:
        code = _said(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)
        _give_up_stdout()
    except _dbapi_error() as error:  # asked for only where an error comes this far
        code = _said(f"the database: {error.orig}", 1)
    sys.exit(code or 0)


def _dbapi_error() -> "type[DBAPIError]":
    from sqlalchemy.exc import DBAPIError

    return DBAPIError


def _used_wrongly(error: Any) -> int:
    """What the command line lacks, which command it is, and how to get help."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "pacs-agent"
    message = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    note(f"{path}: {message}; see {path} --help")
    return 2


def _said(message: str, code: int) -> int:
    note(f"pacs-agent: {' '.join(message.split())}")
    return code


def _give_up_stdout() -> int:
    """Keep the interpreter from flushing once more, at its end, what cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
