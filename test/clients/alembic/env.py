"""What Alembic runs a migration in: the connection that the test hands over."""
from alembic import context

context.configure(connection=context.config.attributes['connection'])
with context.begin_transaction():
    context.run_migrations()
