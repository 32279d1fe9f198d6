"""Brings a database to this program's schema: Alembic inside one explicit transaction, views made anew round it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from pacs_agent.errors import DatabaseError, DatabaseNewerError
from pacs_agent.record.views import VIEWS


def migrate(connection: Connection) -> None:
    """Upgrade to the head revision within the caller's transaction: a kill leaves the old schema whole.

    Raises:
        DatabaseNewerError: the database holds a revision that this program does not know.
    """
    config = _config()
    config.attributes["connection"] = connection
    _revision(connection)
    # SQLite refuses to alter a table under a view, and Alembic's batch mode would leave its temporary table behind.
    for name in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
    command.upgrade(config, "head")
    for name, select in VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {select}"))


def check_current(connection: Connection) -> None:
    """Refuse a database of another schema than this program's: the commands beside the daemon never migrate.

    Raises:
        DatabaseError: it is older; or newer (`DatabaseNewerError`).
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if (found := _revision(connection)) != head:
        raise DatabaseError(f"the database is at schema {found}: start `pacs-agent serve`, which brings it to {head}")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _revision(connection: Connection) -> str | None:
    """The database's revision, which this program must know."""
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseNewerError(
            f"the database is at schema {found}, which this version does not know: install the newer pacs-agent"
        )
    return found
