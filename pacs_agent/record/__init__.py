"""SQL: tables, store, views, migrations. The database is the queue."""
