"""The schema of this release and the rights in it: `sceau migrate`, and the first step of `sceau up`.

By the owner's connection alone. No part that serves alters a table or grants a right.
"""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from directory.base import rights
from directory.base.db import connect_engine
from directory.base.locks import hold_until_disconnected

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


@dataclass(frozen=True)
class Migrated:
    """What was done: from which migration to which, roles made, tables and functions whose rights changed."""

    before: str | None
    now: str
    roles: tuple[str, ...]
    granted: int


def migrate(url: str) -> Migrated:
    """Bring schema and rights to this release's; two that start at once wait for one another.

    Each migration commits by itself: a release that still serves takes trust away meanwhile, and a failure
    leaves done what was done. Refuses `database-roles-missing` before it changes anything.
    """
    engine = connect_engine(url, application="sceau-migrate")
    try:
        # By the session that migrates: one that idled meanwhile may be ended by the database, and a second
        # host would begin too.
        with engine.connect() as connection:
            hold_until_disconnected(connection, "migration")
            connection.commit()
            return _migrate(connection)
    finally:
        engine.dispose()


def _migrate(connection: Connection) -> Migrated:
    roles = rights.make_roles(connection)
    before = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    granted = rights.grant(connection)
    connection.commit()
    return Migrated(before, head(), tuple(roles), granted)


def head() -> str:
    """The last migration of this release."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
