"""Brings a database to this program's schema: Alembic inside one explicit transaction, views made anew round it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from pacs_agent.errors import DatabaseNewerError
from pacs_agent.record.views import VIEWS


def migrate(connection: Connection) -> None:
    """Upgrade to the head revision within the caller's transaction: a kill leaves the old schema whole.

    Raises:
        DatabaseNewerError: the database holds a revision that this program does not know.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    check_not_newer(connection, config)
    # SQLite refuses to alter a table under a view, and Alembic's batch mode would leave its temporary table behind.
    for name in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
    command.upgrade(config, "head")
    for name, select in VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {select}"))


def check_not_newer(connection: Connection, config: Config | None = None) -> None:
    """Raise `DatabaseNewerError` where the database holds a revision that this program does not know."""
    if config is None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseNewerError(
            f"the database is at schema {found}, which this version does not know: install the newer pacs-agent"
        )
