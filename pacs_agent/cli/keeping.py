"""Commands that keep the database and what leaves it: a copy, its return, rows without persons."""

from pathlib import Path
from typing import Annotated

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption
from pacs_agent.errors import DatabaseError, DataDirectoryInUseError
from pacs_agent.settings import load_settings


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.")],
    config: ConfigOption = None,
    force: Annotated[bool, typer.Option("--force", help="Take the place of a file that stands there.")] = False,
) -> None:
    """Copy the database, also while the daemon runs.

    One whole file of one moment, checked, for its owner only. Inbox and outbox are plain files that are written once:
    copy them afterwards.

    Example: pacs-agent backup /backup/pacs-agent-2026-01-31.db
    """
    from pacs_agent.record.backup import back_up

    size = back_up(load_settings(config).database_path, file, replace=force)
    printing.line(f"{file}: {size} bytes")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `backup` made it.")], config: ConfigOption = None
) -> None:
    """Put a copy of the database in its place.

    The daemon must be stopped. The copy is checked first; the present database is set aside, not deleted. At the next
    start whatever was received since the backup is taken in again from the inbox.

    Example: pacs-agent restore /backup/pacs-agent-2026-01-31.db
    """
    from pacs_agent.receive.inbox import DataDirectory
    from pacs_agent.record import backup as record

    settings = load_settings(config)
    try:
        held = DataDirectory(settings.data_dir)
    except DataDirectoryInUseError as error:
        raise DatabaseError(f"{error}: stop it first") from error
    try:
        aside = record.restore(settings.database_path, file)
    finally:
        held.release()
    printing.line(f"{settings.database_path} is {file} now" + (f"; the one before is {aside}" if aside else ""))
    printing.note("decisions of people since the backup (accept, withdraw, pause) are not in it: take them again")
