"""Run migrations on the engine handed in by the caller; knows nothing of our own code (it must outlive it)."""

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text


def run(connection: Connection) -> None:
    begun = connection.in_transaction()
    # A migration that waits for a lock makes everyone behind it wait: better to fail and be tried again.
    connection.execute(text("SET lock_timeout = '4s'"))
    if not begun:
        connection.commit()
    # Each in a transaction of its own. The locks of one are free while the next works for minutes, and
    # migrations done before a failure stay done. Within a transaction of the caller's, all are one.
    context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    engine = create_engine(context.config.get_main_option("sqlalchemy.url", ""), poolclass=pool.NullPool)
    with engine.connect() as own:
        run(own)
