"""Alembic's environment: the connection is the one that `record.migrate` holds, inside its transaction."""

from alembic import context

from pacs_agent.record.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
