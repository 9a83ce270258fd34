"""Run migrations on the engine handed in by the caller; knows nothing of our own code (it must outlive it)."""

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text


def run(connection: Connection) -> None:
    # A migration that waits for a lock makes everyone behind it wait: better to fail and be tried again.
    connection.execute(text("SET lock_timeout = '4s'"))
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    engine = create_engine(context.config.get_main_option("sqlalchemy.url", ""), poolclass=pool.NullPool)
    with engine.connect() as own, own.begin():
        run(own)
