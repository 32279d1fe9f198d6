"""Commands that keep the database and what leaves it: a copy, its return, rows without persons."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import ConfigOption, moment, one_of
from pacs_agent.errors import DatabaseError, DataDirectoryInUseError, PacsAgentError
from pacs_agent.settings import load_settings

KEY_FILE = "export.key"


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
    from pacs_agent.record import backup as record

    settings = load_settings(config)
    with _stopped(settings.data_dir):
        aside = record.restore(settings.database_path, file)
    printing.line(f"{settings.database_path} is {file} now" + (f"; the one before is {aside}" if aside else ""))
    printing.note("decisions of people since the backup (accept, withdraw, pause) are not in it: take them again")


def rebuild(config: ConfigOption = None) -> None:
    """Make a damaged or lost database anew from inbox and outbox.

    The daemon must be stopped. What was received is in the inbox, and what was found is in the reports of the outbox. A
    study whose report speaks of all its images is not analysed again. The report goes again, as the same instance,
    unless the old database still says that it was delivered. That database is set aside, not deleted. Where there is a
    backup, `restore` keeps more.

    Example: pacs-agent rebuild
    """
    from pacs_agent.logs import configure
    from pacs_agent.rebuilding import rebuild as make_anew

    settings = load_settings(config)
    configure("warning", "console")
    with _stopped(settings.data_dir):
        made = make_anew(settings)
    instances = printing.counted(made.instances, "instance", "instances")
    studies = printing.counted(made.studies, "study", "studies")
    printing.line(f"inbox: {instances} of {studies}, {made.waiting} of them to be analysed")
    objects = printing.counted(made.objects, "object", "objects")
    printing.line(f"outbox: {objects}; {made.set_aside} without a place, in {settings.data_dir / 'set-aside'}")
    printing.line(f"{settings.database_path} is new" + (f"; the one before is {made.aside}" if made.aside else ""))
    if made.unread:
        printing.note(f"{printing.counted(made.unread, 'file', 'files')} of the inbox could not be read")
        raise typer.Exit(1)


@contextmanager
def _stopped(data_dir: Path) -> Iterator[None]:
    """While no daemon works there."""
    from pacs_agent.receive.inbox import DataDirectory

    try:
        held = DataDirectory(data_dir)
    except DataDirectoryInUseError as error:
        raise DatabaseError(f"{error}: stop it first") from error
    try:
        yield
    finally:
        held.release()


def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; it must not exist yet.")],
    config: ConfigOption = None,
    deidentify: Annotated[bool, typer.Option("--deidentify", help="Without it nothing is exported.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", callback=moment, help="Received at or after; ISO 8601, UTC."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", callback=one_of(("csv", "json")), help="csv or json.")
    ] = "csv",
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help=f"The key; else {KEY_FILE} in the data directory.")
    ] = None,
) -> None:
    """Results without persons, for whoever may not know them.

    Patients, studies, reports, accessions and devices become keyed hashes, dates go back by days that the patient's
    hash gives; what a header's text said is left out. The key is made once. Who has it can tell of whom a row is.

    Example: pacs-agent export --deidentify --out results.csv --since 2026-01-01
    """
    from pacs_agent.record.export import Pseudonyms, deidentified

    if not deidentify:
        raise PacsAgentError("export is of rows without persons: add --deidentify; `results` gives them as they are")
    if out.exists():
        raise PacsAgentError(f"{out} exists; it is left as it is")
    settings = load_settings(config)
    path = settings.database_path
    if not path.is_file():
        raise DatabaseError(f"there is no database {path}: start `pacs-agent serve` first")
    pseudonyms = Pseudonyms(_given_key(key) if key else _own_key(settings.data_dir / KEY_FILE))
    rows = deidentified(path, pseudonyms, since)
    printing.written(rows, out, form)
    printing.line(f"{out}: {printing.counted(len(rows.rows), 'row', 'rows')}")


def _own_key(file: Path) -> bytes:
    """The key of this data directory, made the first time."""
    import secrets

    from pacs_agent.durable import write_durably
    from pacs_agent.record.export import KEY_BYTES

    if not file.exists():
        write_durably(file, (secrets.token_hex(KEY_BYTES).encode(),), file.with_suffix(".tmp"))
    return _given_key(file)


def _given_key(file: Path) -> bytes:
    from pacs_agent.record.export import KEY_BYTES

    if file.stat().st_mode & 0o077:
        raise PacsAgentError(f"--key: {file} can be read by others: chmod 600")
    if len(content := file.read_bytes().strip()) < KEY_BYTES:
        raise PacsAgentError(f"--key: {file} is shorter than {KEY_BYTES} bytes")
    return content
