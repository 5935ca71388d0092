"""Run by Alembic: applies migrations on the connection that `infra.migrations.migrate` holds the lock with."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
