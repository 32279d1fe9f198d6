"""Options that several commands have, and how their text is read. Prints nothing."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pacs_agent.cli.printing import Format
from pacs_agent.record.times import to_text

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; else $PACS_AGENT_CONFIG, else ./pacs-agent.toml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
FormatOption = Annotated[Format, typer.Option("--format", metavar="FORM", help="table, json or csv.")]


def one_of(words: Sequence[str]) -> Callable[[str | None], str | None]:
    """A callback that refuses any value but *words*, naming them."""

    def checked(value: str | None) -> str | None:
        if value is not None and value not in words:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(words)}")
        return value

    return checked


def moment(text: str | None) -> str | None:
    """A callback: a time as the database holds it; without a zone it is UTC."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
        return to_text(given if given.tzinfo else given.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time: write 2026-01-31 or 2026-01-31T08:15:00Z") from error


def readable(given: str | list[str]) -> str | list[str]:
    """A callback that refuses bytes which are no text in this terminal's encoding."""
    try:
        "".join(given).encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter("it has bytes that are no text") from error
    return given


def not_blank(text: str) -> str:
    """A callback that refuses an empty text, and what `readable` does."""
    if not text.strip():
        raise typer.BadParameter("it is empty")
    readable(text)
    return text


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY_UID", callback=readable, help="A Study Instance UID.")]
